// A decomposition in the form that the views use.
import type { AttributionReply } from "../wire/protocol.gen";

/** A reply with a decomposition, and its values. */
export interface Attribution {
  reply: AttributionReply;
  rows: Float32Array;
  /** The standard deviations over prompts (for "accumulated" those of row + constant); null for a single prompt. */
  std: Float32Array | null;
  /** [component, prompt], row-major; null for a single prompt, or if there are too many values to send. */
  perPrompt: Float32Array | null;
  /** [prompt]: what biases and a soft-cap add between the stream and the target; null if `perPrompt` is null. */
  constants: Float32Array | null;
}

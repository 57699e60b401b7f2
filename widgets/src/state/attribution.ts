// A decomposition in the form that the views use.
import type { AttributionReply } from "../wire/protocol.gen";

/** A reply with a decomposition, and its values. */
export interface Attribution {
  reply: AttributionReply;
  rows: Float32Array;
  /** The standard deviations over prompts; null for a single prompt. */
  std: Float32Array | null;
  /** [component, prompt], row-major; null if there are too many values to send. */
  perPrompt: Float32Array | null;
  /** The constant of each prompt. */
  constants: Float32Array | null;
}

// A decomposition in the form that the views use.
import type { AttributionReply } from "../wire/protocol.gen";

/** A reply with a decomposition, and its values. */
export interface Attribution {
  reply: AttributionReply;
  rows: Float32Array;
  /**
   * The standard deviation of each row over prompts (in "accumulated", of row + constant). Null for a single prompt,
   * and in a comparison.
   */
  std: Float32Array | null;
  /** [component, prompt], row-major; null for a single prompt, in a comparison, or if there are too many values. */
  perPrompt: Float32Array | null;
  /** [prompt]: what biases and a soft-cap add between the stream and the target; null if `perPrompt` is null. */
  constants: Float32Array | null;
}

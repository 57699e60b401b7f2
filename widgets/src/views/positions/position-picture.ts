// What a position map draws.
import type { MapPositions, PositionsReply } from "../../wire/protocol.gen";

export interface PositionPicture {
  by: NonNullable<MapPositions["by"]>;
  reply: PositionsReply;
  values: Float32Array;
  /** The model's own figure at each position; NaN where it is not known. */
  own: Float32Array;
  /** The colour scale's ends: ±. Values may lie beyond it. */
  limit: number;
}

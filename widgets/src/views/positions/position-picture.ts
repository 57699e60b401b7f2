// The data that a position map draws.
import type { MapPositions, PositionsReply } from "../../wire/protocol.gen";

export interface PositionPicture {
  by: NonNullable<MapPositions["by"]>;
  reply: PositionsReply;
  values: Float32Array;
  /** The model's own value at each position; NaN if it is not known. */
  own: Float32Array;
  /** The colour scale goes from −limit to +limit. Values may lie beyond it. */
  limit: number;
}

// The data of the attention on screen, for exports.
import type { Frame } from "../../draw/plane";
import type { Weighting } from "../../state/store";

/** Positions `rows` × `columns`, in blocks of `step` × `step`: 1 unless the prompt is long. */
export interface AttentionMap extends Frame {
  /** "L9H9", or the description of a blend. */
  name: string;
  /** The heads of a blend. */
  of?: string[];
  /** The contribution of the head. */
  value: number | null;
  /** The weightings that are available, each [destination, source]. */
  maps: Partial<Record<Weighting, Float32Array>>;
  /** The source contributions at the destination, for the sources in `columns`. */
  sourceContributions: Float32Array | null;
}
export interface AttentionPicture {
  picture: "attention";
  weighting: Weighting;
  maps: AttentionMap[];
  ownRange: boolean;
  /** The value that stands for a block of cells. */
  pool: "peak" | "mean";
}

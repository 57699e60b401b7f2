// The data of the attention on screen, for exports.
import type { Frame } from "../../draw/plane";
import type { Weighting } from "../../state/store";

/**
 * The map of the positions `rows` × `columns`. Each value stands for `step` × `step` cells; `step` is 1 unless the
 * prompt is long.
 */
export interface AttentionMap extends Frame {
  /** "L9H9", or the description of several heads whose maps are combined in one. */
  name: string;
  /** The heads whose maps are combined. */
  of?: string[];
  /** The contribution of the head; null if it is not known, and for several heads. */
  value: number | null;
  /** The map of each available weighting, [destination, source]. */
  maps: Partial<Record<Weighting, Float32Array>>;
  /**
   * The source contributions of a single head for the sources in `columns`: at the selected destination, or else at the
   * last position of each prompt.
   */
  sourceContributions: Float32Array | null;
}
export interface AttentionPicture {
  picture: "attention";
  weighting: Weighting;
  maps: AttentionMap[];
  ownRange: boolean;
  /** How the value of a block is computed from its cells. */
  pool: "peak" | "mean";
  /** The notes on the maps, for the caption. */
  notes?: string[];
}

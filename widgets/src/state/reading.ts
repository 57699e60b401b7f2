// One row of a head: what it reads at a destination, and what it contributes through each source.

export interface Reading {
  head: string;
  /** Null in the mean over prompts that end at different positions: each prompt is read at its own last position. */
  destination: number | null;
  /** Attention to each source, 0 to 1. */
  weights: Float32Array;
  /** What each source contributes to the target; null if that cannot be determined. */
  contributions: Float32Array | null;
}

/** A source that a head reads: a cell of its attention map, or a token of the strip. */
export interface Spot {
  head: string;
  /** Null: each prompt's last token. */
  destination: number | null;
  source: number;
}

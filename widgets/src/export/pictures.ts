// The data of each picture that can be exported, as plain values. A view that keeps its data to itself offers them
// here; shown-pictures.ts collects the pictures on screen.
import type { Frame } from "../draw/plane";
import type { Run } from "../state/comparison";
import type { Caused, Found } from "../state/effects";
import type { Pair } from "../state/ranked";
import type { Store, Weighting } from "../state/store";
import type { Component } from "../wire/components";
import type { LensCell, MapPositions, WriteCode } from "../wire/protocol.gen";

export type PictureName = WriteCode["picture"];

/** The token at a position: its text (empty if prompts differ), and the text for the screen. */
export interface TokenAt {
  text: string;
  shown: string;
  /** Its position as a subscript, if the same token occurs elsewhere, too. */
  mark: string;
}

/** What all pictures of a panel have in common: words for captions, and the tokens. */
export interface Setting {
  cache: string;
  /** "mean logit difference" */
  quantity: string;
  /** For captions: the model and the prompt; the target; the position. */
  source: string[];
  target: string;
  place: string;
  tokens: TokenAt[];
  destination: number | null;
  layers: number;
  /** The number of prompts that the values are means over. */
  prompts: number;
  /** The names of two compared runs, A and B, and which of them map and ranking show; null if there is one run. */
  compared: { first: string; second: string; run: Run } | null;
}

export interface Valued {
  name: string;
  value: number;
  /** The standard deviation over prompts; null for a single prompt. */
  std: number | null;
  /** Whether the value is not measured. */
  isEstimate?: boolean;
  /** Its values in two compared runs, if there are two. */
  runs?: { first: number; second: number };
}

/** A row of a chart, with what it is of. */
export interface Row extends Valued {
  component: Component;
}

export interface LensPicture {
  picture: "lens";
  points: Row[];
  norm: "frozen" | "recomputed";
}
export interface LayersPicture {
  picture: "layers";
  rows: Row[];
}
export interface HeadsPicture {
  picture: "heads";
  layers: number;
  heads: number;
  /** [layer × head]; NaN if a layer has no heads. */
  values: Float32Array;
  std: Float32Array | null;
  /** The colour scale is ± this; values may lie beyond if the scale is held. */
  limit?: number;
  /** The score that colours the map in place of the values, if any. */
  score: { name: string; meaning: string; low: number; high: number; values: Float32Array } | null;
  pinned: string[];
  /** The values in two compared runs, if there are two. */
  runs?: { first: Float32Array; second: Float32Array };
  /** The measured effect that the values are, and all that is known; where `total` is NaN, the value is estimated. */
  measured?: Measured;
  /** The head that the values feed, in words, if they are not of the target. */
  feeds?: string;
}
/** An effect for which the model was run. */
export interface Measured {
  effect: Caused;
  found: Found;
}
export interface RankingPicture {
  picture: "ranking";
  /** The effect that heads are ranked by, if the model was run for it. */
  effect?: Caused;
  of: "heads" | "neurons";
  rows: Valued[];
}
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
export interface PositionsPicture {
  picture: "positions";
  by: MapPositions["by"];
  labels: string[];
  positions: number;
  /** [component, position] */
  values: Float32Array;
  /** The model's own value at each position; NaN if it is not known. */
  own: Float32Array;
  /** The colour scale is ± this; values may lie beyond. */
  limit: number;
}
export interface TokenLensPicture {
  picture: "token-lens";
  points: string[];
  start: number;
  /** [point][position − start] */
  cells: (LensCell | null)[][];
}
export interface PromptsPicture {
  picture: "prompts";
  /** The head whose contributions are shown; null for the target itself. */
  head: string | null;
  /** The quantity for one prompt: "logit difference". */
  quantity: string;
  mean: number;
  std: number;
  /** In the order on screen. */
  rows: { prompt: number; value: number }[];
}
/** What a target inside the model is made of: columns that are sums, or the pairs of an attention score. */
export interface WhyPicture {
  picture: "why";
  columns: {
    title: string;
    note: string;
    /** What the rows sum to, as a noun: "difference of attention scores". */
    quantity: string;
    total: number;
    /** The lines on screen; the last one may be all others together. */
    rows: { name: string; value: number }[];
    /** Every component, strongest first. */
    all: { name: string; value: number }[];
  }[];
  /** The last row and the last column are all others together; null if the columns are shown. */
  pairs: { rows: string[]; columns: string[]; values: Float32Array } | null;
}
/** What each head adds in two compared runs; or its direct and its total effect. */
export interface RunsPicture {
  picture: "runs";
  /** The names of the axes, and of their difference: A, B, B − A. */
  axes: readonly [string, string, string];
  /** Those that differ most first. */
  heads: Pair[];
  /** The ends of both axes. */
  low: number;
  high: number;
  pinned: string[];
}
export type Picture =
  | LensPicture
  | LayersPicture
  | HeadsPicture
  | RankingPicture
  | AttentionPicture
  | PositionsPicture
  | TokenLensPicture
  | PromptsPicture
  | WhyPicture
  | RunsPicture;

/** The pictures whose data only their view has. */
export interface Offers {
  attention: AttentionPicture;
  positions: PositionsPicture;
  "token-lens": TokenLensPicture;
  prompts: PromptsPicture;
  why: WhyPicture;
  runs: RunsPicture;
}
type Readers = { [K in keyof Offers]?: () => Offers[K] | null };

const offers = new WeakMap<Store, Readers>();

/** A view registers how to read its picture; `read` returns null while there is none. */
export function offer<K extends keyof Offers>(store: Store, name: K, read: () => Offers[K] | null): void {
  const readers = offers.get(store) ?? {};
  readers[name] = read as Readers[K];
  offers.set(store, readers);
}

export function offered<K extends keyof Offers>(store: Store, name: K): Offers[K] | null {
  return offers.get(store)?.[name]?.() ?? null;
}

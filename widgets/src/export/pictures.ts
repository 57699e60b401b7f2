// What can be exported: the data of each picture, as plain values. A view whose data live only inside it offers them
// here; sight.ts gathers what is in sight.
import type { Frame } from "../draw/plane";
import type { Store, Weighting } from "../state/store";
import type { Component } from "../wire/components";
import type { LensCell, MapPositions, WriteCode } from "../wire/protocol.gen";

export type PictureName = WriteCode["picture"];

/** What stands at a position: the text as it is (empty where prompts differ), and as it is shown. */
export interface TokenAt {
  text: string;
  shown: string;
  /** Its position as a subscript, where the same token stands elsewhere, too. */
  mark: string;
}

/** What all pictures of a view have in common, in words. */
export interface Setting {
  cache: string;
  /** "mean logit difference" */
  quantity: string;
  /** For captions: the model and which prompt; what is attributed; and where. */
  source: string[];
  target: string;
  place: string;
  tokens: TokenAt[];
  destination: number | null;
  layers: number;
  /** How many prompts the figures are means over. */
  prompts: number;
}

export interface Valued {
  name: string;
  value: number;
  /** The standard deviation over prompts, in their mean. */
  std: number | null;
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
  /** [layer × head]; NaN where a layer has no heads. */
  values: Float32Array;
  std: Float32Array | null;
  /** The colours' ends where they are held, ±; values may lie beyond. */
  limit?: number;
  /** What colours the map in place of the values. */
  score: { name: string; meaning: string; low: number; high: number; values: Float32Array } | null;
  pinned: string[];
}
export interface RankingPicture {
  picture: "ranking";
  of: "heads" | "neurons";
  rows: Valued[];
}
/** Positions `rows` × `columns`, in blocks of `step` × `step`: 1 unless the prompt is long. */
export interface AttentionMap extends Frame {
  /** "L9H9", or what a blend is of. */
  name: string;
  /** The heads of a blend. */
  of?: string[];
  /** What the head adds in all. */
  value: number | null;
  /** [destination, source], those that are there. */
  maps: Partial<Record<Weighting, Float32Array>>;
  /** What each of these sources brings at the destination. */
  brings: Float32Array | null;
}
export interface AttentionPicture {
  picture: "attention";
  weighting: Weighting;
  maps: AttentionMap[];
  ownRange: boolean;
  /** What stands for a block. */
  pool: "peak" | "mean";
}
export interface PositionsPicture {
  picture: "positions";
  by: MapPositions["by"];
  labels: string[];
  positions: number;
  /** [component, position] */
  values: Float32Array;
  /** The model's own figure at each position; NaN where it is not known. */
  own: Float32Array;
  /** The colour scale's ends: ±. Values may lie beyond. */
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
  /** Whose figures: a head's, or null for the whole. */
  head: string | null;
  /** Of one prompt: "logit difference". */
  quantity: string;
  mean: number;
  std: number;
  /** In the order on screen. */
  rows: { prompt: number; value: number }[];
}
export type Picture =
  | LensPicture
  | LayersPicture
  | HeadsPicture
  | RankingPicture
  | AttentionPicture
  | PositionsPicture
  | TokenLensPicture
  | PromptsPicture;

/** The pictures whose data a view keeps to itself. */
export interface Offers {
  attention: AttentionPicture;
  positions: PositionsPicture;
  "token-lens": TokenLensPicture;
  prompts: PromptsPicture;
}
type Readers = { [K in keyof Offers]?: () => Offers[K] | null };

const offers = new WeakMap<Store, Readers>();

/** A view says where its picture can be read; null while there is none. */
export function offer<K extends keyof Offers>(store: Store, name: K, read: () => Offers[K] | null): void {
  const readers = offers.get(store) ?? {};
  readers[name] = read as Readers[K];
  offers.set(store, readers);
}

export function offered<K extends keyof Offers>(store: Store, name: K): Offers[K] | null {
  return offers.get(store)?.[name]?.() ?? null;
}

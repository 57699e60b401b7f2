// What a picture needs so that it can be exported, and the data of the charts. The views below the charts have their
// own data, and offer their pictures here; shown-pictures.ts collects the pictures on screen.
import type { Run } from "../state/comparison";
import type { Caused, Found } from "../state/effects";
import type { Store, Tab } from "../state/store";
import type { Component } from "../wire/components";
import type { WriteCode } from "../wire/protocol.gen";
import type { Table } from "./csv";

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
  /** The number of prompts in the mean of the charts. */
  prompts: number;
  /** The names of two compared runs, A and B, and which of A, B and B − A is in view; null if there is one run. */
  compared: { first: string; second: string; run: Run } | null;
}

export interface Valued {
  name: string;
  value: number;
  /** The standard deviation over prompts; null for a single prompt. */
  std: number | null;
  /** Whether the value is estimated, not measured. */
  isEstimate?: boolean;
  /** Its values in two compared runs, if there are two. */
  runs?: { first: number; second: number };
}

/** A row of a chart, with its component. */
export interface Row extends Valued {
  component: Component;
}

export interface LensPicture {
  picture: "lens";
  points: Row[];
  norm: "frozen" | "recomputed";
  /** What is read in place of the stream, if the lens is not the plain one. */
  lens?: string;
}
export interface LayersPicture {
  picture: "layers";
  rows: Row[];
}
export interface HeadsPicture {
  picture: "heads";
  layers: number;
  heads: number;
  /** [layer × head]; NaN if a head has no value. */
  values: Float32Array;
  std: Float32Array | null;
  /** The scale goes from −limit to +limit. If the scale is held (`state/held-scale.ts`), values may lie beyond it. */
  limit?: number;
  /** The score that colours the map in place of the values, if any. */
  score: { name: string; meaning: string; low: number; high: number; values: Float32Array } | null;
  pinned: string[];
  /** The values in two compared runs, if there are two. */
  runs?: { first: Float32Array; second: Float32Array };
  /** Which effect `values` shows, and the kernel's reply. A head whose `total` is NaN there has no measured value. */
  measured?: Measured;
  /** Why cells are empty, each reason once. */
  empty?: string[];
  /** What the map shows, in words, if it shows what feeds a head. */
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
  effect?: Measured;
  of: "heads" | "neurons";
  rows: Valued[];
}

// --- how a picture is exported ---------------------------------------------------------------------------------------
/** The data of a picture, as plain values. */
export interface PictureData {
  readonly picture: PictureName;
}

/** How pictures of one kind are exported. */
export interface PictureKind<P extends PictureData> {
  /** The title in the menu. */
  readonly title: (picture: P) => string;
  /** The table of the picture, with one row for each of its marks. Its labels are those of TransformerLens. */
  readonly table: (picture: P, setting: Setting) => Table;
  /** SVG text at print size, always in light colours. */
  readonly figure: (picture: P, setting: Setting) => string;
  /** The heads for which Python code is copied. If null or left out, it is written for the pinned heads. */
  readonly heads?: (picture: P) => string[] | null;
}

/** A picture on screen, and its exports. */
export interface ShownPicture {
  readonly picture: PictureData;
  readonly title: string;
  readonly table: (setting: Setting) => Table;
  readonly figure: (setting: Setting) => string;
  readonly heads: string[] | null;
}

export function shownAs<P extends PictureData>(kind: PictureKind<P>, picture: P): ShownPicture {
  return {
    picture,
    title: kind.title(picture),
    table: (setting) => kind.table(picture, setting),
    figure: (setting) => kind.figure(picture, setting),
    heads: kind.heads?.(picture) ?? null,
  };
}

/** Reads the picture of a view; null while there is none. */
export type ReadPicture = () => ShownPicture | null;

const offers = new WeakMap<Store, Map<Tab, ReadPicture>>();

/** Registers how to read the picture of a view below the charts. */
export function offer(store: Store, tab: Tab, read: ReadPicture): void {
  const readers = offers.get(store) ?? new Map<Tab, ReadPicture>();
  offers.set(store, readers.set(tab, read));
}

export function offered(store: Store, tab: Tab): ShownPicture | null {
  return offers.get(store)?.get(tab)?.() ?? null;
}

// What the views request: each request is a function of the selection. The views send these requests, and the recorder
// uses them to know what is on screen. py_backend/residscope/export/view_requests.py makes the same requests for a
// saved page: tests/wire/view_requests.json tests both sides.
import { parseHead } from "../base/format";
import { type Span, stepOf } from "../draw/plane";
import type { Ask, Kind } from "../wire/client";
import type { Component } from "../wire/components";
import type { CacheFacts } from "../wire/protocol.gen";
import { saeState } from "./feature-tokens";
import { stepsBefore } from "./path";
import type { Scene } from "./scene";
import type { Selected, Values } from "./selectable";
import {
  asksEach,
  behindHead,
  innerTarget,
  isAboutHead,
  isNext,
  isSet,
  layerOf,
  ofSide,
  placed,
  readAt,
  scoreIn,
  throughHead,
} from "./target";

type Of<K extends Kind> = Extract<Ask, { kind: K }>;
type By = Of<"attribute">["by"];

/** Cells per side of a thumbnail. */
const SIDE = 32;
/** The number of points and of positions in a tile of the token lens, and of tokens that a cell lists. */
export const TALL = 4;
export const WIDE = 32;
export const LISTED = 10;
/** The maximum number of heads in the position map. */
const MOST_MAPPED = 48;
/** The number of components on each side of the pair map, before the user asks for more. */
export const PAIRED = 8;
/** The number of tokens in each list of the tokens that a head writes. */
const WRITTEN = 5;
/** The attention in two runs is shown for at most this many heads. */
export const COMPARED_HEADS = 6;
/** The largest number of features that are listed. */
const FEATURES = 50;
/** The decompositions of the charts. */
export const BYS = ["head", "layer", "accumulated"] as const;
/** The number of suggestions in the target editor. */
const PREDICTIONS = 24;
/** In a prompt with fewer positions, segments are looked for only if they are chosen. */
const FEWEST_POSITIONS = 32;

// --- functions for one request; each reads only what its request depends on ------------------------------------------
export function tokens({ prompt }: Pick<Selected, "prompt">): Of<"tokens"> {
  return { kind: "tokens", prompt };
}

export function contributions(shown: Selected, by: By): Of<"attribute"> {
  const { target, prompt, position } = shown;
  const request: Of<"attribute"> = { kind: "attribute", by, target, prompt, position, norm: "frozen" };
  return by === "accumulated" ? { ...request, norm: shown.norm, transport: shown.transport } : request;
}

/** The decomposition of the shown run and of the one that it is compared with; null if there is no comparison. */
export function comparison(shown: Selected, by: By): Of<"compare"> | null {
  const { against } = shown;
  if (!against) return null;
  const { transport: _, ...request } = contributions(shown, by);
  return { ...request, kind: "compare", against };
}

/**
 * How the positions of both runs are paired. Null if there is no second run, or if the second run is the shown run
 * without some heads.
 */
export function pairing({ against, prompt }: Pick<Selected, "against" | "prompt">): Of<"pairing"> | null {
  return against && !against.without?.length ? { kind: "pairing", against, prompt } : null;
}

/** How the target changes if a run of the model replaces a head, or the stream at a layer and position. */
export function effects(
  { target, prompt, position, replaced_by, against }: Selected,
  of: "heads" | "stream",
): Of<"effects"> {
  const other = of === "stream" && against ? "other" : replaced_by;
  const request: Of<"effects"> = { kind: "effects", target, of, replaced_by: other, prompt, position };
  return other === "other" ? { ...request, against } : request;
}

/** Whether the head map shows an effect for which the model is run, not a score or what feeds a head. */
export function isCaused({ effect, score, feeds }: Selected): boolean {
  return effect !== "direct" && score === null && feeds === null;
}

/** The run of the model without some heads; null if the shown run is not compared with such a run. */
export function without({ against }: Selected): Of<"without"> | null {
  return against?.without?.length ? { kind: "without", against } : null;
}

/** The attention of a head in both runs; null if there is no comparison, or `head` is not the name of a head. */
export function attentionOfRuns({ against, prompt }: Selected, head: string): Of<"compare-attention"> | null {
  const at = parseHead(head);
  return at && against && { kind: "compare-attention", ...at, against, prompt };
}

/** The request for the mean over prompts. Its reply also has the values for each prompt, unless they are too many. */
export function ofEachPrompt({ target, position }: Selected, by: By): Of<"attribute"> {
  return { kind: "attribute", by, target, prompt: null, position, norm: "frozen" };
}

/** The segments of the prompt; null in the mean over prompts, and for a short prompt if no segments are chosen. */
export function segments(
  { segments: by, prompt }: Pick<Selected, "segments" | "prompt">,
  { prompts, positions }: Pick<CacheFacts, "prompts" | "positions">,
): Of<"segments"> | null {
  const isMean = prompt === null && prompts > 1;
  return isMean || (by === null && positions < FEWEST_POSITIONS) ? null : { kind: "segments", by, prompt };
}

/**
 * How much each segment reads each segment through one head. Null if no segments are chosen, in the mean over prompts,
 * or if `head` is not the name of a head.
 */
export function segmentMap({ shown, facts }: Pick<Scene, "shown" | "facts">, head: string): Of<"segment-map"> | null {
  const { segments: by, target, prompt, weighting } = shown;
  const at = parseHead(head);
  return by === null || !at || !segments(shown, facts)
    ? null
    : { kind: "segment-map", ...at, by, target, prompt, weighting };
}

/**
 * The heads through which the segment `destination` reads the segment `source` most. If `destination` is null, it
 * stands for all positions after the source. Without `cell`, the kernel takes the last segment and the one before it.
 * Null if no segments are chosen, and in the mean over prompts.
 */
export function segmentHeads(
  { shown, facts }: Pick<Scene, "shown" | "facts">,
  cell: Required<Pick<Of<"segment-heads">, "destination" | "source">> | null = null,
): Of<"segment-heads"> | null {
  const { segments: by, target, prompt, weighting } = shown;
  return by === null || !segments(shown, facts)
    ? null
    : { kind: "segment-heads", by, target, prompt, weighting, ...(cell ?? {}) };
}

export function scores({ prompt }: Selected, score: Of<"scores">["score"]): Of<"scores"> {
  return { kind: "scores", score, prompt };
}

export function neurons({ layer, top_k, target, prompt, position }: Selected): Of<"neurons"> {
  return { kind: "neurons", layer, k: top_k, target, prompt, position };
}

/** How each token was predicted; null unless each position has its own target. */
export function nextTokens({ target, prompt }: Selected): Of<"next-tokens"> | null {
  return asksEach(target) ? { kind: "next-tokens", target, prompt } : null;
}

/** What one head adds at each position. */
export function alongPositions({ target, prompt }: Selected, head: string): Of<"positions"> {
  return { kind: "positions", by: "head", target, prompt, norm: "frozen", heads: [head] };
}

/** The attention of a head; null if `head` is not the name of a head. */
export function attention(
  { target, prompt, position }: Selected,
  head: string,
  weighting: Values["weighting"],
  part: Pick<Of<"attention">, "rows" | "columns" | "pool"> = {},
): Of<"attention"> | null {
  const at = parseHead(head);
  return at && { kind: "attention", ...at, target, prompt, position, weighting, ...part };
}

export function thumbnails({ target, prompt, weighting }: Selected, layer: number): Of<"thumbnails"> {
  return { kind: "thumbnails", layer, target, prompt, weighting, side: SIDE };
}

/** The combined attention of all heads of a layer (null: of the model). */
export function blend(
  { target, prompt }: Selected,
  layer: number | null,
  weighting: Values["weighting"],
  part: Pick<Of<"blend">, "rows" | "columns"> = {},
): Of<"blend"> {
  return { kind: "blend", layer, target, prompt, weighting, ...part };
}

export function positionMap(shown: Selected, ranked: string[]): Of<"positions"> {
  const { by, target, prompt } = shown;
  const heads = by === "head" ? ranked.slice(0, MOST_MAPPED) : [];
  const request: Of<"positions"> = { kind: "positions", by, target, prompt, norm: "frozen", heads };
  return by === "accumulated" ? { ...request, norm: shown.norm, transport: shown.transport } : request;
}

/** A tile of the token lens; of both runs, if the second one or the difference is shown. */
export function lensTile(
  { target, prompt, against, run, transport }: Pick<Selected, "target" | "prompt" | "against" | "run" | "transport">,
  tile: Tile,
): Of<"token-lens" | "compare-token-lens"> {
  const about = { ...tile, target, prompt, k: LISTED, norm: "recomputed" } as const;
  return against === null || run === "first"
    ? { kind: "token-lens", ...about, transport }
    : { kind: "compare-token-lens", ...about, against };
}

export function suggestions({ prompt, position }: Selected): Of<"suggest"> {
  return { kind: "suggest", prompt, position, k: PREDICTIONS };
}

/** What each head adds to the query, key or value of a head. */
export function feeding({ target, prompt, position }: Selected, feeds: NonNullable<Values["feeds"]>): Of<"attribute"> {
  const { layer, head, source, by } = feeds;
  const fed =
    by === "value"
      ? throughHead(target, { layer, head, source })
      : innerTarget({ kind: "attention", layer, head, destination: position, source, versus: "most", side: by });
  return { kind: "attribute", by: "head", target: fed, prompt, position, norm: "frozen" };
}

/** What each head adds to one side of the attention score that is the target; null if the target is no such score. */
export function sideOf(shown: Selected, side: "query" | "key"): Of<"attribute"> | null {
  const score = scoreIn(shown.target);
  return score && { ...contributions(shown, "head"), target: ofSide(shown.target, score, side) };
}

/**
 * If the target is an attention score: which heads wrote what the score's head moves from its source into an earlier
 * target. This is the target of the latest step that is not about the same head. Null if the head does not write to it.
 * `last` is the index of the last position, if it is known; this index means the same as "last". The MLPs of `parallel`
 * layers read the stream before their layer.
 */
export function moved(shown: Selected, last: number | null, parallel: readonly number[]): Of<"attribute"> | null {
  const score = scoreIn(shown.target);
  const before = score && stepsBefore(shown).findLast(({ target }) => !isAboutHead(target, score));
  if (!score || !before) return null;
  const { target } = before;
  if (isNext(target) && (before.position ?? "last") === "last") return null; // this position differs between prompts
  const position = placed(before.position ?? "last", last);
  const read = readAt(target, position);
  if (read === null || score.layer >= layerOf(target, parallel)) return null;
  if (placed(read, last) !== placed(score.destination, last)) return null;
  const { layer, head, source } = score;
  return { ...contributions(shown, "head"), position, target: throughHead(target, { layer, head, source }) };
}

/**
 * If the target is what a head moves from one source into another target: the head rows of the other target. Among them
 * is the head's contribution from all sources.
 */
export function headsOwnRow(shown: Selected): Of<"attribute"> | null {
  const source = shown.target.through?.at(-1)?.source ?? null;
  return source === null ? null : { ...contributions(shown, "head"), target: behindHead(shown.target) };
}

/** The strongest features of the shown SAE; null without a target. */
export function features(shown: Selected, saes: CacheFacts["saes"]): Of<"features"> | null {
  const { target, prompt, position, sae } = shown;
  if (!isSet(target)) return null;
  return { kind: "features", target, prompt, position, sae, k: FEATURES, state: saeState(sae, saes) };
}

/** The activation of the chosen feature at each token; null if no feature is chosen. */
export function featureTokens(
  { feature, prompt, sae }: Selected,
  saes: CacheFacts["saes"],
): Of<"feature-tokens"> | null {
  return feature === null ? null : { kind: "feature-tokens", feature, prompt, sae, state: saeState(sae, saes) };
}

/** The pairs of components of the attention score that is the target. */
export function pairs({ target, prompt }: Selected, k = PAIRED): Of<"pairs"> {
  return { kind: "pairs", target, prompt, k };
}

/**
 * The tokens that the head of a target inside the model writes. Null if there is no such head, or if the target that
 * the head writes to is read at each source.
 */
export function headTokens({ target, prompt, position }: Selected): Of<"head-tokens"> | null {
  const score = scoreIn(target);
  const { through = [] } = target;
  const of = score ?? through.at(-1);
  if (!of) return null;
  const at = score ? score.destination : readAt(behindHead(target), position);
  const { layer, head, source } = of;
  return at === null ? null : { kind: "head-tokens", layer, head, prompt, position: at, source, k: WRITTEN };
}

// --- parts of requests -----------------------------------------------------------------------------------------------
export type Tile = Pick<Of<"token-lens">, "points" | "start" | "stop">;

/** A tile by its place on the grid of all points and positions. */
export function tileAt(points: string[], positions: number, row: number, column: number): Tile {
  const start = column * WIDE;
  return {
    points: points.slice(row * TALL, (row + 1) * TALL),
    start,
    stop: Math.min(positions, start + WIDE),
  };
}

/** The points of the lens without those after each layer's attention. */
const withoutMid = (points: readonly Component[]): Component[] => points.filter(({ kind }) => kind !== "mid");

/** The points that have a row in the token lens: one for each layer and the last point, or all points. */
export const lensRows = ({ lens_rows }: Pick<Selected, "lens_rows">, points: readonly Component[]): Component[] =>
  lens_rows === "layers" ? withoutMid(points) : [...points];

/** The row of the destination, which is also needed cell by cell, if the map is down-sampled; else nothing. */
export function lineOf(positions: number, destination: number | null): { rows?: Span } {
  const long = stepOf(positions, positions) > 1;
  return long && destination !== null ? { rows: { start: destination, stop: destination + 1 } } : {};
}

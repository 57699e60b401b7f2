// What the head map shows: each head's contribution, or a score. The last picture stays until the next one is there.
import { computed, type ReadonlySignal } from "@preact/signals-core";
import { parseHead, plain, signed } from "../base/format";
import { endsOf, isBeyond } from "../draw/clipped";
import type { Theme } from "../draw/colours";
import { css, divergingRgb, limitOf, type Rgb, sequentialRgb } from "../draw/colours";
import { holdOf } from "./held-scale";
import type { Values } from "./selectable";
import type { Score, Store } from "./store";

/** In the order of the menu. In sentences, the part before the parenthesis is used. */
const NAMES: Record<Score, string> = {
  previous: "previous-token",
  first: "first-token (sink)",
  duplicate: "duplicate-token",
  induction: "induction",
  entropy: "entropy (bits)",
  copying: "copying (OV)",
};
export const SCORES = Object.entries(NAMES) as [Score, string][];

export interface MapPicture {
  /** Null: the contributions. */
  score: Score | null;
  /** [layer × head]; NaN where there is no value. */
  values: Float32Array;
  /** The ends of the colour scale; while it is held, values may lie beyond them. */
  low: number;
  high: number;
  /** The value farthest from zero. */
  largest: number;
  /** What the score measures, in a sentence. */
  meaning: string;
  /** The head that the values feed; null if the values are of the target. */
  feeds: Values["feeds"];
  /** The values of both compared runs, [layer × head] each; null if there is one run. */
  runs: { first: Float32Array; second: Float32Array } | null;
}

export function mapPicture(store: Store): ReadonlySignal<MapPicture | null> {
  let last: MapPicture | null = null;
  return computed(() => {
    const score = store.score.value;
    const scores = store.scores.value;
    const feeds = store.feeds.value;
    const feeding = store.feeding.value;
    if (feeds !== null) {
      if (feeding?.feeds === feeds) last = contributions(store, feeding.rows.rows, feeds);
    } else if (score === null) last = ofRun(store);
    else if (scores?.reply.score === score)
      last = {
        score,
        values: scores.values,
        low: scores.reply.low,
        high: scores.reply.high,
        largest: limitOf(scores.values),
        meaning: scores.reply.meaning,
        feeds: null,
        runs: null,
      };
    return last;
  });
}

function contributions(store: Store, rows: Float32Array | undefined, feeds: Values["feeds"]): MapPicture | null {
  const facts = store.facts.value;
  if (!rows || !facts) return null;
  const values = rows.subarray(0, facts.layers * facts.heads);
  const limit = limitOf(values);
  return { score: null, values, ...addedRange(store, limit), largest: limit, meaning: "", feeds, runs: null };
}

/** The contributions of a run, or the difference of two. Two runs have one scale; their difference has its own. */
export function ofRun(store: Store): MapPicture | null {
  const picture = contributions(store, store.runs.rows.value?.rows, null);
  const run = store.runs.shown.value;
  const compared = store.runs.heads.value;
  if (!picture || run === null || !compared) return picture;
  const count = picture.values.length;
  const runs = { first: compared.first.rows.subarray(0, count), second: compared.second.rows.subarray(0, count) };
  const limit = run === "difference" ? limitOf(picture.values) : Math.max(limitOf(runs.first), limitOf(runs.second));
  const largest = Math.max(limitOf(runs.first), limitOf(runs.second));
  return { ...picture, ...addedRange(store, limit, run), largest, runs };
}

/** The ends of the colour scale of contributions: ± the largest one, unless the scale is held. */
export function addedRange(
  store: Store,
  limit: number,
  run: Values["run"] | null = null,
): { low: number; high: number } {
  const picture = run === "difference" ? "heads difference" : "heads";
  return holdOf(store, "heads").range(picture, { low: -limit, high: limit });
}

/** What a head adds in both compared runs: " (A +2.24, B −2.31)"; empty if there is one run, or no values. */
export function runWords({ runs, largest }: MapPicture, index: number): string {
  const [first, second] = [runs?.first[index] ?? NaN, runs?.second[index] ?? NaN];
  return Number.isFinite(first) && Number.isFinite(second)
    ? ` (A ${signed(first, largest)}, B ${signed(second, largest)})`
    : "";
}

/** Whether a value lies beyond the colour scale. */
export function liesBeyond(picture: MapPicture, value: number): boolean {
  return picture.score === null && isBeyond(value, picture);
}

/** The ends of the scale in words: "≤ −2.24", "+2.24 held". */
export function endWords(picture: MapPicture): [string, string] {
  if (picture.score !== null) return [written(picture, picture.low), written(picture, picture.high)];
  const [low, high] = endsOf(picture.values, picture, (value) => signed(value, picture.high));
  return [low, high]; // the button shows whether the scale is held
}

/** Whether the scale has both signs: blue and orange; otherwise it has the one colour of attention. */
export function isDiverging({ low }: MapPicture): boolean {
  return low < 0;
}

export function colourOf(picture: MapPicture, value: number, theme: Theme): Rgb {
  if (isDiverging(picture)) return divergingRgb(value, picture.high, theme);
  return sequentialRgb(share(picture, value), theme);
}

/** The place of a value between the ends of the scale, 0 to 1. */
export function share({ low, high }: MapPicture, value: number): number {
  return high > low ? Math.min(1, Math.max(0, (value - low) / (high - low))) : 0.5;
}

/** A value as text. Contributions always have a sign; scores only if they can be negative. */
export function written(picture: MapPicture, value: number): string {
  return isDiverging(picture) ? signed(value, picture.largest) : plain(value, picture.largest);
}

/** The text of a cell after its head's name: "+2.24", "previous-token 0.98". */
export function cellWords(picture: MapPicture, value: number): string {
  return picture.score === null
    ? signed(value, picture.largest)
    : `${scoreName(picture.score)} ${Number.isNaN(value) ? "not known" : written(picture, value)}`;
}

/** "previous-token", "copying". */
export function scoreName(score: Score): string {
  return NAMES[score].replace(/ \(.*/, "");
}

/** A head's value in the picture. */
export function valueIn(picture: MapPicture, name: string, heads: number): number {
  const head = parseHead(name);
  return head ? (picture.values[head.layer * heads + head.head] ?? NaN) : NaN;
}

/** The scale as a CSS gradient, its low end at the left. */
export function levelScale(picture: MapPicture, theme: Theme): string {
  const { low, high } = picture;
  const colours = Array.from({ length: 49 }, (_, i) =>
    css(colourOf(picture, low + ((high - low || 1) * i) / 48, theme)),
  );
  return `linear-gradient(to right, ${colours.join(", ")})`;
}

// What the head map shows: each head's contribution, a measured effect, or a score. The last picture stays until the
// next one is there, but none of its numbers is then shown or said. After a failure there is no picture.

import { computed, type ReadonlySignal } from "@preact/signals-core";
import { parseHead, plain, signed } from "../base/format";
import { keysOf } from "../base/keys-of";
import { endsOf, isBeyond } from "../draw/clipped";
import type { Theme } from "../draw/colours";
import { css, divergingRgb, limitOf, type Rgb, sequentialRgb } from "../draw/colours";
import { signWords } from "./effect-words";
import { type Caused, type Found, isEstimated, valuesOf } from "./effects";
import { holdOf } from "./held-scale";
import { COMPARED } from "./runs";
import type { Values } from "./selectable";
import { FEEDS, SCORES, type Score, type Scores, type Store } from "./store";

/** The names of the scores, in the order of the menu. Sentences use only the part before the parenthesis. */
const NAMES: Record<Score, string> = {
  previous: "previous-token",
  first: "first-token (sink)",
  duplicate: "duplicate-token",
  induction: "induction",
  entropy: "entropy (bits)",
  copying: "copying (OV)",
};
export const SCORE_NAMES = keysOf(NAMES).map((score) => [score, NAMES[score]] as const);

export interface MapPicture {
  /** The score that the map shows; null if it shows contributions or an effect. */
  score: Score | null;
  /** [layer × head]; NaN where there is no value. */
  values: Float32Array;
  /** The ends of the colour scale; while it is held, values may lie beyond them. */
  low: number;
  high: number;
  /** The largest absolute value: of the picture, or of both compared runs. */
  largest: number;
  /** What the score measures, in a sentence; empty if the map shows no score. */
  meaning: string;
  /** The input of a head that the values contribute to; null if they contribute to the target. */
  feeds: Values["feeds"];
  /** The values of both compared runs, [layer × head] each; null if there is one run. */
  runs: { first: Float32Array; second: Float32Array } | null;
  /** The measured effect that the map shows, and all known values; null if the map shows something else. */
  measured: { effect: Caused; found: Found } | null;
  /** Whether no value is known for this selection yet. Then the colours are those of the previous picture. */
  pending: boolean;
}

export function mapPicture(store: Store): ReadonlySignal<MapPicture | null> {
  let last: MapPicture | null = null;
  /** While a reply is awaited, the picture is pending, and the last picture takes the place of a missing one. */
  const inTime = (picture: MapPicture | null, lane: string, isAwaited: boolean): MapPicture | null => {
    const isRefused = store.problems.value.has(lane);
    last = picture ?? (isRefused ? null : last);
    const shown = picture ?? (isAwaited ? last : null);
    return shown && { ...shown, pending: isAwaited };
  };
  return computed(() => {
    const score = store.score.value;
    const scores = store.scores.value;
    const feeds = store.feeds.value;
    const feeding = store.feeding.value;
    const awaited = store.awaited.value;
    if (feeds !== null) {
      const fed = feeding?.feeds === feeds ? contributions(store, feeding.rows.rows, feeds) : null;
      return inTime(fed, FEEDS, awaited.has(FEEDS));
    } else if (score !== null) {
      const scored = scores?.reply.score === score ? ofScore(scores) : null;
      return inTime(scored, SCORES, awaited.has(SCORES));
    }
    const lane = (store.runs.shown.value ?? "first") === "first" ? "heads" : COMPARED.heads;
    if (store.effectShown.value === "direct") return inTime(ofRun(store), lane, store.runs.areAwaited.value);
    return (last = ofEffect(store, last));
  });
}

function ofScore({ reply, values }: Scores): MapPicture {
  return {
    score: reply.score,
    values,
    low: reply.low,
    high: reply.high,
    largest: limitOf(values),
    meaning: reply.meaning,
    feeds: null,
    runs: null,
    measured: null,
    pending: false,
  };
}

function contributions(store: Store, rows: Float32Array | undefined, feeds: Values["feeds"]): MapPicture | null {
  const facts = store.facts.value;
  if (!rows || !facts) return null;
  const values = rows.subarray(0, facts.layers * facts.heads);
  const limit = limitOf(values);
  const range = addedRange(store, limit);
  const added = { meaning: "", feeds, runs: null, measured: null, pending: false };
  return { score: null, values, ...range, largest: limit, ...added };
}

/**
 * The picture of the effect in view. Until one of its values is known, the previous picture stays, marked as
 * pending: its numbers are not shown. If the previous picture was a score, the contributions are shown instead.
 */
function ofEffect(store: Store, last: MapPicture | null): MapPicture | null {
  const effect = store.effectShown.value;
  const { heads } = store.effects;
  const found = heads.found.value;
  if (effect === "direct" || heads.refusal.value !== null) return null;
  if (!found) {
    const shown = last?.score === null ? last : ofRun(store);
    return shown && { ...shown, feeds: null, runs: null, pending: true };
  }
  const values = valuesOf(found, effect);
  const limit = heads.reach(effect, limitOf(values));
  const { low, high } = holdOf(store, "heads").range(`heads ${effect}`, { low: -limit, high: limit });
  const measured = { effect, found };
  return {
    score: null,
    values,
    low,
    high,
    largest: limit,
    meaning: "",
    feeds: null,
    runs: null,
    measured,
    pending: false,
  };
}

/** Whether a value is estimated, not measured. */
export function isHatched({ measured }: MapPicture, index: number): boolean {
  return measured !== null && isEstimated(measured.found, measured.effect, index);
}

/** Why a head has no value in the map: "no attention", "not measured", "not cached", "not known". */
export function whyEmpty(
  store: Store,
  { score, measured }: Pick<MapPicture, "score" | "measured">,
  name: string,
): string {
  if (store.isAbsent(name)) return "no attention";
  if (measured !== null) return "not measured";
  return score === null ? "not cached" : "not known";
}

/** "adds: total +2.650 (direct +2.240, indirect +0.410)", "change with B’s output: about +2.1 (estimate)". */
export function effectWords({ measured, values, largest }: MapPicture, index: number): string {
  const value = values[index] ?? NaN;
  if (!measured || Number.isNaN(value)) return "not measured";
  const { effect, found } = measured;
  const sign = signWords(found.isPutIn);
  const [total = NaN, direct = NaN] = [found.total[index], found.direct[index]];
  const write = (name: string, one: number): string => `${name} ${signed(one, largest, 1)}`;
  const known = ([name, one]: readonly [string, number]): string[] => (Number.isNaN(one) ? [] : [write(name, one)]);
  if (isEstimated(found, effect, index)) {
    const more = effect === "estimate" ? known(["total", total]) : [];
    return `${sign}: about ${signed(value, largest, -1)} (${["estimate", ...more].join("; ")})`;
  }
  const all = { total, direct, indirect: total - direct };
  const others = keysOf(all).flatMap((name) => (name === effect ? [] : known([name, all[name]])));
  return `${sign}: ${write(effect, value)}${others.length > 0 ? ` (${others.join(", ")})` : ""}`;
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

/** The ends of the scale in words: "≤ −2.24", "+2.24". */
export function endWords(picture: MapPicture): [string, string] {
  if (picture.score !== null) return [written(picture, picture.low), written(picture, picture.high)];
  const [low, high] = endsOf(picture.values, picture, (value) => signed(value, picture.high));
  return [low, high];
}

/** Whether the scale is diverging: orange for negative values, blue for positive ones. Otherwise it is sequential. */
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

// A sentence about the head in focus, clause by clause: its contribution, the tokens it reads, and what they
// contribute. A clause that does not fit is left out completely, so that no number is cut.

import { type Head, parseHead, signed, vanishes } from "../../base/format";
import type { Sentence } from "../../base/sentence";
import { limitOf } from "../../draw/colours";
import { cellWords, type MapPicture, valueIn } from "../../state/map-picture";
import type { Reading } from "../../state/reading";
import type { Store } from "../../state/store";
import { written } from "../attention/attention-scale";
import { strongest } from "../attention/attention-words";
import { headSpread, plusMinus } from "../heads/spread";

/** The largest number of sources that are named. */
const MOST = 4;
/** Sources with less attention are not named, except those with the most attention or the largest contribution. */
const FAINT = 0.02;
/** A narrow panel shows brackets instead of these words (see `sentence.ts`). */
export const WHICH_ADDS = ", which adds ";

export const attention = (weight: number): string => written("pattern", weight);

/** The clauses: “L23H3 adds +1.73;” “reads ·John₁₀ 0.60, which adds +1.83;” “<|im_start|> 0.22 (−0.03);” … */
export function headClauses(
  store: Store,
  name: string,
  reading: Reading | null,
  picture: MapPicture | null,
): Sentence[] {
  const head = parseHead(name);
  if (!head) return [];
  if (store.isAbsent(name)) {
    const filtered = store.facts.value?.missing.includes("attn.hook_pattern") ?? false;
    return [
      [
        filtered
          ? `${name}: its attention is not in this cache`
          : `${name}: layer ${head.layer} has no attention heads`,
      ],
    ];
  }
  const value = store.headValue(name);
  const spread = headSpread(store, name);
  const own: Sentence =
    value === null
      ? [name]
      : [
          `${name} adds `,
          { stress: signed(value, store.largest.value) },
          spread ? ` ${plusMinus(spread.std, store.largest.value)}` : "",
          store.effectShown.value === "direct" ? "" : " directly",
          ...inSecond(store, picture, head),
        ];
  const read = reading?.head === name ? readClauses(store, reading) : [];
  const isScored = picture !== null && picture.score !== null && !picture.pending;
  return [own, ...read, ...(isScored ? [scoreClause(store, name, picture)] : [])];
}

/** What a head adds in the second run, if two runs are compared: “ in A, −2.31 in B”. */
function inSecond(store: Store, picture: MapPicture | null, { layer, head }: Head): Sentence {
  const runs = picture?.pending ? null : picture?.runs; // both runs must be of this selection
  const value = runs?.second[layer * (store.facts.value?.heads ?? 0) + head] ?? NaN;
  return Number.isFinite(value) ? [" in\u00a0A, ", { stress: signed(value, store.largest.value) }, " in\u00a0B"] : [];
}

/** The score of a head: “previous-token 0.87: how much attention goes to the token just before”. */
function scoreClause(store: Store, name: string, picture: MapPicture): Sentence {
  // `words` begins with the score's name.
  const meaning = picture.meaning.replace(/^[\w-]+ score: /, "").replaceAll("`", "");
  const words = cellWords(picture, valueIn(picture, name, store.facts.value?.heads ?? 0));
  return [`${words}${meaning === "" ? "" : `: ${meaning.replace(/^[A-Z](?=[a-z])/, (first) => first.toLowerCase())}`}`];
}

function readClauses(store: Store, reading: Reading): Sentence[] {
  const { destination, weights } = reading;
  const read = strongest(weights, MOST).filter((k, nth) => nth === 0 || (weights[k] ?? 0) >= FAINT);
  const most = contributesMost(reading, tallest(store, reading.contributions));
  const sources =
    most === null || most === read[0]
      ? read
      : [...read.slice(0, 1), most, ...read.slice(1).filter((k) => k !== most)].slice(0, MOST);
  const run = store.runs.of("heads") === null ? "" : "in\u00a0A, ";
  const from =
    destination === null || destination === store.lastPosition.value
      ? run
      : `${run}at ${store.tokenName(destination)} `;
  return sources.map((k, nth): Sentence => {
    const start = `${nth === 0 ? `${from}reads ` : ""}${store.tokenName(k)} ${attention(weights[k] ?? 0)}`;
    const added = contribution(store, reading, k);
    if (added === null) return [start];
    return nth === 0 ? [start, WHICH_ADDS, added] : [`${start} (`, added, ")"];
  });
}

/** The source that contributes most, or else the one that is read most; null if none is read. */
export function mostTelling(store: Store, reading: Reading): number | null {
  return contributesMost(reading, tallest(store, reading.contributions)) ?? strongest(reading.weights, 1)[0] ?? null;
}

/** The source with the largest contribution, whose attention may be small; null if all contributions vanish. */
function contributesMost({ contributions }: Reading, largest: number): number | null {
  if (!contributions || contributions.length === 0) return null;
  const most = contributions.reduce(
    // A source that is padding in every prompt has no value.
    (best, value, k) => (Math.abs(value) > Math.abs(contributions[best] || 0) ? k : best),
    0,
  );
  return vanishes(contributions[most] || 0, largest) ? null : most;
}

/**
 * The scale for the numbers and bars of a head's source contributions: the largest of them, but at least a hundredth of
 * the largest contribution of a head.
 */
export function tallest(store: Store, contributions: Float32Array | null): number {
  return contributions ? Math.max(limitOf(contributions), store.largest.value / 100) : 0;
}

function contribution(store: Store, { contributions }: Reading, at: number): Sentence[number] | null {
  const added = contributions?.[at];
  if (added === undefined || !contributions) return null;
  const largest = tallest(store, contributions);
  return vanishes(added, largest) ? "≈ 0" : { stress: signed(added, largest) };
}

/** The sentence about a source: “L23H3 at ·to reads ·John₁₀: attention 0.60, which adds +1.83”. */
export function sourceSentence(store: Store, reading: Reading, at: number): Sentence {
  const { head, destination, weights } = reading;
  const where = destination === null ? "" : ` at ${store.tokenName(destination)}`;
  const name = store.tokenName(at);
  if (destination !== null && at > destination && !((weights[at] ?? 0) > 0))
    return [`${head}${where} cannot see ${name}, which comes later`];
  const start = `${head}${where} reads ${name}: attention ${attention(weights[at] ?? 0)}`;
  const added = contribution(store, reading, at);
  return added === null ? [start] : [start, WHICH_ADDS, added];
}

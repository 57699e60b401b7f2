// The head in focus in words, clause by clause: what it adds, what it reads, what that contributes. A clause that does not
// fit is left out whole: no number is ever cut.
import { parseHead, plain, signed, vanishes } from "../format";
import type { Sentence, Store } from "../store";
import { strongest } from "./attention-words";
import { cellWords, type MapPicture, valueIn } from "./map-picture";
import type { Reading } from "./reading";
import { headSpread, overPrompts } from "./spread";

/** So many sources are named. */
const MOST = 4;
/** Attention below this is not worth a word, but for the strongest. */
const FAINT = 0.02;

export const attention = (weight: number): string => weight.toFixed(2);

/** “L23H3 adds +1.73;” “reads ·John₁₀ 0.60, which adds +1.83;” “<|im_start|> 0.22 (−0.03);” … */
export function headClauses(store: Store, name: string, reading: Reading | null, picture: MapPicture | null): Sentence[] {
  const head = parseHead(name);
  if (!head) return [];
  if (store.isAbsent(name)) return [[`${name}: layer ${head.layer} has no attention heads`]];
  const value = store.headValue(name);
  const scored = picture !== null && picture.score !== null;
  const score = scored ? ` (${cellWords(picture, valueIn(picture, name, store.facts.value?.heads ?? 0))})` : "";
  const own: Sentence = value === null ? [`${name}${score}`]
    : [`${name}${score} ${value < 0 ? "takes" : "adds"} `, { stress: signed(value, store.largest.value) }, overPrompts(headSpread(store, name), store.largest.value)];
  const read = reading?.head === name ? readClauses(store, reading) : [];
  const meaning: Sentence[] = scored ? [[picture.meaning.replace(/^[\w-]+ score: /, "").replaceAll("`", "")]] : []; // the score is named already
  return [own, ...read, ...meaning];
}

function readClauses(store: Store, { destination, weights, contributions }: Reading): Sentence[] {
  const sources = strongest(weights, MOST).filter((k, nth) => nth === 0 || (weights[k] ?? 0) >= FAINT);
  const from = destination === null || destination === store.lastPosition.value ? "" : `at ${store.tokenName(destination)} `;
  return sources.map((k, nth): Sentence => {
    const start = `${nth === 0 ? `${from}reads ` : ""}${store.tokenName(k)} ${attention(weights[k] ?? 0)}`;
    const added = contributions?.[k];
    if (added === undefined) return [start];
    const largest = store.largest.value;
    const figure = { stress: vanishes(added, largest) ? plain(0, largest) : signed(added, largest) };
    return nth === 0 ? [`${start}, which ${added < 0 ? "takes" : "adds"} `, figure] : [`${start} (`, figure, ")"];
  });
}

/** A source under the pointer: “L23H3 at ·to reads ·John₁₀: attention 0.60, which adds +1.83”. */
export function sourceSentence(store: Store, { head, destination, weights, contributions }: Reading, at: number): Sentence {
  const where = destination === null ? "" : ` at ${store.tokenName(destination)}`;
  const name = store.tokenName(at);
  if (destination !== null && at > destination && !((weights[at] ?? 0) > 0)) return [`${head}${where} cannot see ${name}, which comes later`];
  const start = `${head}${where} reads ${name}: attention ${attention(weights[at] ?? 0)}`;
  const added = contributions?.[at];
  if (added === undefined) return [start];
  return [`${start}, which ${added < 0 ? "takes" : "adds"} `, { stress: signed(added, store.largest.value) }];
}

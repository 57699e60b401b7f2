// Attention in words: a cell, and a destination's (or a source's) strongest few.
import { isEmpty } from "../draw/matrix";
import { quoted, signed } from "../format";
import type { Sentence, Store, Weighting } from "../store";
import type { Attention } from "./attention-data";
import { length, written } from "./attention-scale";

const destination = (store: Store, q: number): string => `${quoted(store.tokenText(q))} (destination ${q})`;
const source = (store: Store, k: number): string => `${quoted(store.tokenText(k))} (source ${k})`;

/** The destination whose row `brings` is: that of the last picture until the new one's has come. */
export function ownDestination({ locked }: Attention, store: Store): number | null {
  return locked ?? store.lastPosition.value;
}

/** What source k brings at destination q: in float32 where that is the destination that was asked for. */
export function contributionAt(attention: Attention, store: Store, q: number, k: number): number | null {
  const { size, maps, brings } = attention;
  if (brings && q === ownDestination(attention, store)) return brings[k] ?? null;
  return maps.contribution?.[q * size + k] ?? null;
}

/** The whole row of them. */
export function contributionsAt(attention: Attention, store: Store, q: number | null): Float32Array | null {
  const { size, maps, brings } = attention;
  if (q === null || !maps.contribution || (brings && q === ownDestination(attention, store))) return brings;
  return maps.contribution.subarray(q * size, (q + 1) * size);
}

/** “L9H9: “·to” (destination 14) reads “·Mary” (source 4): attention 0.79, contributes +1.93 to the logit difference” */
export function cellSentence(store: Store, attention: Attention, weighting: Weighting, head: string, q: number, k: number): Sentence {
  const { size, maps } = attention;
  const at = (map: Float32Array | undefined): number => map?.[q * size + k] ?? NaN;
  const pattern = at(maps.pattern);
  if (k > q && !(pattern > 0)) return [`${head}: ${destination(store, q)} cannot see ${source(store, k)}, which comes later`];
  const value = weighting === "value" && maps.value ? `, value-weighted ${length(at(maps.value))}` : "";
  const start = `${head}: ${destination(store, q)} reads ${source(store, k)}: attention ${written("pattern", pattern)}${value}`;
  const brought = contributionAt(attention, store, q, k);
  if (brought === null) return [start];
  const where = q === store.destination.value ? "" : " there";
  return [`${start}, contributes `, { stress: signed(brought), sign: brought }, ` to the ${store.quantity.value}${where}`];
}

export type Direction = "reads" | "read-by";

/** A row of a map (what a destination reads), or a column (what reads a source); NaN where there is nothing. */
export function lineOf(values: Float32Array, size: number, direction: Direction, token: number): Float32Array {
  return Float32Array.from({ length: size }, (_, i) => {
    const [q, k] = direction === "reads" ? [token, i] : [i, token];
    const value = values[q * size + k] ?? NaN;
    return isEmpty(value, q, k) ? NaN : value;
  });
}

/** “·to” reads “·Mary” 0.79, “·John” 0.10, …: the strongest of a line. */
export function lineWords(store: Store, weighting: Weighting, direction: Direction, token: number, line: Float32Array, most = 3): string {
  const size = (i: number): number => Math.abs(line[i] ?? 0);
  const strongest = [...line.keys()].filter((i) => size(i) > 0).sort((a, b) => size(b) - size(a)).slice(0, most);
  const listed = strongest.map((i) => `${quoted(store.tokenText(i))} ${written(weighting, line[i] ?? NaN)}`).join(", ") || "nothing";
  const at = quoted(store.tokenText(token));
  if (weighting === "contribution") return direction === "reads" ? `at ${at} contribute ${listed}` : `${at} contributes at ${listed}`;
  return `${at} ${direction === "reads" ? "reads" : "is read by"} ${listed}`;
}

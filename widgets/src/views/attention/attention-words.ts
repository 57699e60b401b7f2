// Sentences about attention: a cell, a block of cells, and the strongest values of a row or column.

import { quoted, signed } from "../../base/format";
import type { Sentence } from "../../base/sentence";
import { isMasked } from "../../draw/matrix";
import { blockOf, indexOf, length as many, type Span } from "../../draw/plane";
import type { Store, Weighting } from "../../state/store";
import type { Attention, Direction, Maps, Pane } from "./attention-data";
import { length, written } from "./attention-scale";

const destination = (store: Store, q: number): string => `${quoted(store.tokenName(q))} (destination ${q})`;
const source = (store: Store, k: number): string => `${quoted(store.tokenName(k))} (source ${k})`;

/** The destination of this picture's `sourceContributions`; null if it differs between prompts. */
export function ownDestination({ locked }: Attention, store: Store): number | null {
  return locked ?? store.lastPosition.value;
}

/**
 * The contribution of source k at destination q. If q is the requested destination, it is exact (float32); otherwise it
 * is from the map. Null if it is not known.
 */
export function contributionAt(attention: Attention, pane: Pane, store: Store, q: number, k: number): number | null {
  const { sourceContributions } = attention;
  if (sourceContributions && q === ownDestination(attention, store)) return sourceContributions[k] ?? null;
  return pane.step > 1 ? null : (pane.maps.contribution?.[indexOf(pane, q, k)] ?? null);
}

/** A row or a column of a head's maps, with a value for each cell. */
export interface Line {
  token: number;
  maps: Maps;
}

/** A token's line, taken from the maps; null if their values stand for blocks of cells. */
export function lineIn(pane: Pane, direction: Direction, token: number): Line | null {
  if (pane.step > 1) return null;
  const maps: Maps = {};
  for (const name of ["pattern", "value", "contribution"] as const) {
    const map = pane.maps[name];
    if (map)
      maps[name] =
        direction === "reads"
          ? map.subarray(indexOf(pane, token, 0), indexOf(pane, token, 0) + many(pane.columns))
          : column(map, pane, token);
  }
  return { token, maps };
}

function column(map: Float32Array, { rows, columns }: Pane, token: number): Float32Array {
  const wide = many(columns);
  return Float32Array.from({ length: many(rows) }, (_, q) => map[q * wide + token] ?? NaN);
}

/**
 * The sentence about a cell: “L9H9: “·to” (destination 14) reads “·Mary” (source 4): attention 0.79, contributes +1.93
 * to the logit difference”.
 */
export function cellSentence(
  store: Store,
  attention: Attention,
  pane: Pane,
  weighting: Weighting,
  head: string,
  q: number,
  k: number,
): Sentence {
  if (pane.step > 1) return blockSentence(store, pane, weighting, head, q, k);
  const at = (map: Float32Array | undefined): number => map?.[indexOf(pane, q, k)] ?? NaN;
  const pattern = at(pane.maps.pattern);
  if (isPadding(pane, pattern)) return [`${head}: no prompt has tokens at both destination ${q} and source ${k}`];
  if (k > q && !(pattern > 0))
    return [`${head}: ${destination(store, q)} cannot see ${source(store, k)}, which comes later`];
  const value = weighting === "value" && pane.maps.value ? `, value-weighted ${length(at(pane.maps.value))}` : "";
  const start =
    `${head}: ${destination(store, q)} reads ${source(store, k)}: attention ` +
    `${written("pattern", pattern)}${value}`;
  const added = contributionAt(attention, pane, store, q, k);
  if (added === null) return [start];
  const where = q === store.destination.value ? "" : " there";
  return [
    `${start}, contributes `,
    { stress: signed(added, store.largest.value) },
    ` to the ${store.quantity.value}${where}`,
  ];
}

/** Whether a cell is empty because its destination or its source is padding in every prompt of the mean. */
const isPadding = ({ maps }: Pane, value: number): boolean => maps.pattern !== undefined && Number.isNaN(value);

/** Only the numbers of a cell: “0.79, +1.93”; null if the cell is masked. */
export function cellNumbers(
  store: Store,
  attention: Attention,
  pane: Pane,
  weighting: Weighting,
  q: number,
  k: number,
): string | null {
  const at = (name: Weighting): number => pane.maps[name]?.[indexOf(pane, q, k)] ?? NaN;
  const pattern = at("pattern");
  if (isPadding(pane, pattern) || (k > q && !(pattern > 0))) return null;
  const value = weighting === "value" && pane.maps.value ? `, ${length(at("value"))}` : "";
  const added = contributionAt(attention, pane, store, q, k);
  return `${written("pattern", pattern)}${value}${added === null ? "" : `, ${signed(added, store.largest.value)}`}`;
}

/** The sentence about a block: “L9H9: positions 128–135 read 512–519: strongest attention 0.42 · zoom in …”. */
function blockSentence(store: Store, pane: Pane, weighting: Weighting, head: string, q: number, k: number): Sentence {
  const { rows, columns } = blockOf(pane, q, k);
  const at = (name: Weighting): number => pane.maps[name]?.[indexOf(pane, q, k)] ?? NaN;
  if (isPadding(pane, at("pattern")))
    return [`${head}: no prompt has tokens at both destinations ${spanWords(rows)} and sources ${spanWords(columns)}`];
  if (columns.start >= rows.stop && !(at("pattern") > 0))
    return [`${head}: ${positions(rows)} cannot see ${spanWords(columns)}, which come later`];
  const kind = store.pool.value === "peak" ? "strongest" : "mean";
  const numbers: Sentence =
    weighting === "contribution"
      ? [
          `${kind} contribution to the ${store.quantity.value} `,
          { stress: written(weighting, at(weighting), store.largest.value) },
        ]
      : [
          `${kind} ${weighting === "value" ? `value-weighted ${length(at("value"))}, ` : ""}attention ` +
            `${written("pattern", at("pattern"))}`,
        ];
  return [`${head}: ${positions(rows)} read ${spanWords(columns)}: `, ...numbers, " · zoom in for single tokens"];
}

const spanWords = (span: Span): string => (many(span) === 1 ? String(span.start) : `${span.start}–${span.stop - 1}`);
const positions = (span: Span): string => `position${many(span) === 1 ? "" : "s"} ${spanWords(span)}`;

/** What a value of the pane stands for: “strongest of 8 × 8”; "" if it stands for a single cell. */
export function poolWords(pool: "peak" | "mean", { step }: Pane): string {
  return step === 1 ? "" : `${pool === "peak" ? "strongest" : "mean"} of ${step} × ${step}`;
}

/** A row of a map (what a destination reads), or a column (what reads a source). Masked cells are NaN. */
export function lineOf(values: Float32Array, size: number, direction: Direction, token: number): Float32Array {
  return Float32Array.from({ length: size }, (_, i) => {
    const [q, k] = direction === "reads" ? [token, i] : [i, token];
    const value = values[q * size + k] ?? NaN;
    return isMasked(value, q, k) ? NaN : value;
  });
}

/** A line with its masked cells replaced by NaN. */
export function unmasked(line: Float32Array, direction: Direction, token: number): Float32Array {
  return line.map((value, i) =>
    isMasked(value, direction === "reads" ? token : i, direction === "reads" ? i : token) ? NaN : value,
  );
}

/** The indices of at most `most` values that are farthest from zero, the farthest first. */
export function strongest(line: Float32Array, most: number): number[] {
  const best: number[] = [];
  const size = (i: number | undefined): number => (i === undefined ? 0 : Math.abs(line[i] ?? 0));
  for (let i = 0; i < line.length; i += 1) {
    if (!(size(i) > (best.length < most ? 0 : size(best.at(-1))))) continue;
    let place = best.length;
    while (place > 0 && size(best[place - 1]) < size(i)) place -= 1;
    best.splice(place, 0, i);
    if (best.length > most) best.pop();
  }
  return best;
}

/** The sentence about the strongest values of a line: “·to” reads “·Mary” 0.79, “·John” 0.10. */
export function lineWords(...line: Parameters<typeof lineParts>): string {
  return lineParts(...line).join("");
}

/** The same sentence in parts. The first part ends with the strongest value; each further part has one more value. */
export function lineParts(
  store: Store,
  weighting: Weighting,
  direction: Direction,
  token: number,
  line: Float32Array,
  most = 3,
): string[] {
  const named = (i: number): string => quoted(store.tokenName(i));
  const [first = "nothing", ...others] = strongest(line, most).map(
    (i) => `${named(i)} ${written(weighting, line[i] ?? NaN, store.largest.value)}`,
  );
  const listed = (start: string): string[] => [`${start} ${first}`, ...others.map((one) => `, ${one}`)];
  const at = named(token);
  if (weighting === "contribution")
    return listed(direction === "reads" ? `contributions at ${at}:` : `${at} contributes at`);
  return listed(`${at} ${direction === "reads" ? "reads" : "is read by"}`);
}

/** The finest pane that contains a cell; panes are ordered from coarse to fine. */
export function paneAt(panes: Pane[], q: number, k: number): Pane | null {
  return panes.findLast((pane) => indexOf(pane, q, k) >= 0) ?? null;
}

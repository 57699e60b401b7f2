// Reads the attention of a head in two compared runs from the kernel's reply, and writes the sentence about a cell.
import type { Sentence } from "../../base/sentence";
import { everything, indexOf, type Plane } from "../../draw/plane";
import type { Store } from "../../state/store";
import type { Result } from "../../wire/client";
import type { PositionPair } from "../../wire/protocol.gen";
import { unpacked } from "../attention/attention-data";

export const MAPS = ["A", "B", "B − A"] as const;

export interface RunMaps {
  head: string;
  size: number;
  notes: string[];
  /** Entry i: the positions in A and in B that row i and column i stand for; null if both are i. */
  pairs: readonly PositionPair[] | null;
  /** The pattern of A, of B, and B − A. */
  planes: [Plane, Plane, Plane];
}

export function runMapsOf({ reply, buffers }: Result<"compare-attention">): RunMaps {
  const { layer, head, positions, notes, step = 1, parts, pairs = null } = reply;
  const frame = { ...everything(positions), step };
  const plane = (at: number): Plane => {
    const part = parts[at];
    return { ...frame, values: part ? unpacked(part, buffers[at], frame) : new Float32Array(0) };
  };
  return { head: `L${layer}H${head}`, size: positions, notes, pairs, planes: [plane(0), plane(1), plane(2)] };
}

/** The position in the first run that a row or a column belongs to. */
export function positionOf({ pairs }: RunMaps, place: number): number {
  return pairs?.[place]?.first ?? place;
}

/** The row of a position of the first run; null if the position has no row. */
export function placeIn({ pairs }: RunMaps, position: number | null): number | null {
  const place = pairs ? pairs.findIndex(({ first }) => first === position) : (position ?? -1);
  return place < 0 ? null : place;
}

/** The row of a position of the first run; the last row if the position has no row. */
export function placeOf(maps: RunMaps, position: number | null): number {
  return placeIn(maps, position) ?? maps.size - 1;
}

export interface Cell {
  row: number;
  column: number;
}

/** The sentence about a cell: “L23H3: ·to₁₄ reads ·John₁₀ 0.65 in A, 0.43 in B: −0.22”. */
export function cellSentence(store: Store, maps: RunMaps, { row, column }: Cell): Sentence {
  const { head, planes } = maps;
  const [destination, source] = [row, column].map((place) => store.tokenName(positionOf(maps, place)));
  const [a = NaN, b = NaN, difference = NaN] = planes.map((plane) => plane.values[indexOf(plane, row, column)]);
  // In a mean over prompts, a cell is empty if in every prompt one of its two positions is padding.
  if ([a, b].every(Number.isNaN))
    return [`${head}: no prompt has tokens at both ${destination} and ${source}, in A or in B`];
  const reads = `${head}: ${destination} reads ${source}`;
  if (Number.isNaN(a)) return [`${reads} ${b.toFixed(2)} in B; no prompt of A has both tokens`];
  if (Number.isNaN(b)) return [`${reads} ${a.toFixed(2)} in A; no prompt of B has both tokens`];
  const change = Math.abs(difference).toFixed(2);
  const sign = Number(change) === 0 ? "" : difference < 0 ? "−" : "+";
  return [
    `${reads} ${a.toFixed(2)} in A, ${b.toFixed(2)} in B: `,
    { stress: sign + change },
    planes[0].step > 1 ? " (each number is the strongest in its block)" : "",
  ];
}

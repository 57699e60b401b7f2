// The attention of a head in two compared runs, from the reply of the kernel, and the sentence about a cell.
import type { Sentence } from "../../base/sentence";
import { everything, indexOf, type Plane } from "../../draw/plane";
import type { Store } from "../../state/store";
import type { Result } from "../../wire/client";
import { unpacked } from "../attention/attention-data";

export const MAPS = ["A", "B", "B − A"] as const;

export interface RunMaps {
  head: string;
  size: number;
  notes: string[];
  /** The pattern of A, of B, and B − A. */
  planes: [Plane, Plane, Plane];
}

export function runMapsOf({ reply, buffers }: Result<"compare-attention">): RunMaps {
  const { layer, head, positions, notes, step = 1, parts } = reply;
  const frame = { ...everything(positions), step };
  const plane = (at: number): Plane => {
    const part = parts[at];
    return { ...frame, values: part ? unpacked(part, buffers[at], frame) : new Float32Array(0) };
  };
  return { head: `L${layer}H${head}`, size: positions, notes, planes: [plane(0), plane(1), plane(2)] };
}

export interface Cell {
  row: number;
  column: number;
}

/** “L23H3: ·to₁₄ reads ·John₁₀ 0.65 in A, 0.43 in B: −0.22”. */
export function cellSentence(store: Store, { head, planes }: RunMaps, { row, column }: Cell): Sentence {
  const [a = NaN, b = NaN, difference = NaN] = planes.map((plane) => plane.values[indexOf(plane, row, column)]);
  const change = Math.abs(difference).toFixed(2);
  const sign = Number(change) === 0 ? "" : difference < 0 ? "−" : "+";
  return [
    `${head}: ${store.tokenName(row)} reads ${store.tokenName(column)} ${a.toFixed(2)} in A, ${b.toFixed(2)} in B: `,
    { stress: sign + change },
    planes[0].step > 1 ? " (each the strongest of its block)" : "",
  ];
}

// The token lens of two compared runs: the contents of a cell, and the sentence about it.
import { quoted, visible } from "../../base/format";
import type { Sentence } from "../../base/sentence";
import { css, divergingRgb, type Rgb, sequentialRgb, type Theme } from "../../draw/colours";
import { inkOn } from "../../draw/ink";
import type { Run } from "../../state/comparison";
import type { Store } from "../../state/store";
import type { Component } from "../../wire/components";
import type { LensCell } from "../../wire/protocol.gen";
import { hasRank, probability } from "./lens-words";

/** A cell shows the answer's rank if the rank is at most this number. */
export const MAX_RANK = 10;

/** The same point and position in both runs. `second` is undefined if there is one run, null if B has no such cell. */
export interface BothCells {
  first: LensCell;
  second?: LensCell | null;
  /** The position in the second run. */
  beside?: number | null;
}

export interface Contents {
  style: string;
  text: string;
  name: string;
  rank: number | null;
  /** Whether the likeliest token differs between the two runs. */
  differs: boolean;
}

/** Smaller differences are not written into the cells. */
const LEAST_WRITTEN = 0.005;
const NO_PARTNER = "paired with no position of B";

/** The difference of the answer's probability, B − A; null if it is not known. */
export function difference({ first, second }: BothCells): number | null {
  return second && hasRank(first) && hasRank(second) ? second.answer - first.answer : null;
}

/** Whether the likeliest token of a cell differs between the two runs. */
function otherToken({ first, second }: BothCells): boolean {
  return second != null && first.tokens[0] !== second.tokens[0];
}

const coloured = (colour: Rgb): string => `background-color:${css(colour)};color:${inkOn(colour)}`;

function ofOneRun(cell: LensCell, theme: Theme): Contents {
  const [top = "", p = NaN] = [cell.tokens[0], cell.probabilities[0]];
  return {
    style: coloured(sequentialRgb(p, theme)),
    text: visible(top),
    name: `${visible(top)} ${probability(p)}${hasRank(cell) ? `, answer rank ${cell.rank}` : ""}`,
    rank: hasRank(cell) && cell.rank <= MAX_RANK ? cell.rank : null,
    differs: false,
  };
}

/** What a cell shows; `limit` is the end of the scale of differences. */
export function contentsOf(both: BothCells, run: Run, limit: number, theme: Theme): Contents {
  const { first, second } = both;
  if (second === undefined || run === "first") return ofOneRun(first, theme);
  if (second === null) return { style: "", text: "", name: NO_PARTNER, rank: null, differs: false };
  if (run === "second") return ofOneRun(second, theme);
  const differs = otherToken(both);
  const value = difference(both);
  const [a = "", b = ""] = [first.tokens[0], second.tokens[0]];
  const tokens = differs ? `${visible(a)} in A, ${visible(b)} in B` : `${visible(a)} in both`;
  return {
    style: coloured(divergingRgb(value ?? 0, limit, theme)),
    text: value === null ? visible(b) : Math.abs(value) < LEAST_WRITTEN ? "" : written(value),
    name: `${value === null ? "" : `answer ${written(value)}, `}${tokens}`,
    rank: null,
    differs,
  };
}

/** A difference of probabilities: "+0.43", "−0.004", "+2e-5"; "0" has no sign. */
export function written(value: number): string {
  return value === 0 ? "0" : (value < 0 ? "−" : "+") + probability(Math.abs(value));
}

/** The sentence about a cell of the second run, or of both runs; null if only the first run is shown. */
export function runsSentence(
  store: Store,
  both: BothCells,
  point: Component,
  position: number,
  run: Run,
): Sentence | null {
  const { first, second, beside } = both;
  if (second === undefined || run === "first") return null;
  const at = `${point.label} at ${quoted(store.tokenName(position))} (position ${position})`;
  if (second === null) return [`${at}: ${NO_PARTNER}`];
  const other = beside == null || beside === position ? "" : ` (there position ${beside})`;
  const top = ({ tokens, probabilities }: LensCell): string =>
    `${quoted(visible(tokens[0] ?? ""))} ${probability(probabilities[0] ?? NaN)}`;
  const value = difference(both);
  const answer =
    value === null || !hasRank(first) || !hasRank(second)
      ? []
      : [
          `; the answer ${probability(first.answer)} (rank ${first.rank}) in A, ${probability(second.answer)} ` +
            `(rank ${second.rank}) in B: `,
          { stress: written(value) },
        ];
  return [`${at}: A would predict ${top(first)}, B${other} ${top(second)}`, ...answer];
}

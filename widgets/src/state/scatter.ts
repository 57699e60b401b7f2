// The heads as points: what each adds in runs A and B, or its direct and its total effect. Both axes have the same
// scale, so a head with two equal values lies on the diagonal.
import { headName } from "../base/format";
import type { Comparison } from "./comparison";
import type { Caused, Found } from "./effects";
import type { Pair } from "./ranked";

export interface Scatter {
  /** The heads whose two values are both known; those with the largest difference come first. */
  heads: Pair[];
  /** The ends of both axes. */
  low: number;
  high: number;
  /** The names of the horizontal axis, the vertical axis, and the difference. */
  axes: readonly [string, string, string];
  /** Which of a head's numbers colours it: blue above zero, orange below. */
  colouredBy: "second" | "value";
}

export const RUN_AXES = ["A", "B", "B − A"] as const;

/**
 * Direct effects on the horizontal axis. On the vertical axis are the measured total effects; or the estimates of all
 * heads, measured or not, if the map shows estimates. The colours are those of the map.
 */
export function scatterOfEffects({ direct, total, estimate }: Found, heads: number, effect: Caused): Scatter {
  const isEstimate = effect === "estimate";
  const shown = isEstimate ? estimate : total;
  const all = Array.from(
    shown,
    (second, i): Pair => ({
      name: headName(Math.floor(i / heads), i % heads),
      first: direct[i] ?? NaN,
      second,
      value: second - (direct[i] ?? NaN),
    }),
  )
    .filter(({ value }) => Number.isFinite(value))
    .sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
  const axes = ["direct", isEstimate ? "estimate" : "total", "indirect"] as const;
  // The axes also cover the estimates, so that they hardly move while more is measured.
  const ends = endsOf([...direct, ...estimate, ...total].filter(Number.isFinite));
  return { heads: all, ...ends, axes, colouredBy: effect === "indirect" ? "value" : "second" };
}

export function scatterOf({ first, second, difference }: Comparison, layers: number, heads: number): Scatter {
  const all = Array.from(
    { length: layers * heads },
    (_, i): Pair => ({
      name: headName(Math.floor(i / heads), i % heads),
      first: first.rows[i] ?? NaN,
      second: second.rows[i] ?? NaN,
      value: difference.rows[i] ?? NaN,
    }),
  )
    .filter(({ first, second }) => Number.isFinite(first) && Number.isFinite(second))
    .sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
  const values = all.flatMap(({ first, second }) => [first, second]);
  return { heads: all, ...endsOf(values), axes: RUN_AXES, colouredBy: "value" };
}

/** The ends of both axes, with a margin. */
function endsOf(values: number[]): Pick<Scatter, "low" | "high"> {
  const [least, most] = [
    values.reduce((low, value) => Math.min(low, value), 0),
    values.reduce((high, value) => Math.max(high, value), 0),
  ];
  const margin = (most - least || 1) * 0.06;
  return { low: least - margin, high: most + margin };
}

/** Whether a head is orange: its colouring number is negative. */
export function isMinus({ colouredBy }: Pick<Scatter, "colouredBy">, head: Pair): boolean {
  return head[colouredBy] < 0;
}

/** The name of the number that colours the heads: "total", "B − A". */
export function colouringName({ axes, colouredBy }: Pick<Scatter, "axes" | "colouredBy">): string {
  return colouredBy === "second" ? axes[1] : axes[2];
}

/** The place of a value on an axis, in percent from its low end. */
export function placeOn({ low, high }: Pick<Scatter, "low" | "high">, value: number): number {
  return ((value - low) / (high - low)) * 100;
}

export interface Spot {
  /** In percent: from the left, and from the top. */
  x: number;
  y: number;
}

export function spotOf(scatter: Scatter, { first, second }: Pick<Pair, "first" | "second">): Spot {
  return { x: placeOn(scatter, first), y: 100 - placeOn(scatter, second) };
}

/** The nearest head within `reach` of a spot. If several are equally near, the one with the largest difference. */
export function nearestTo(scatter: Scatter, { x, y }: Spot, reach: number): Pair | null {
  let [best, distance]: [Pair | null, number] = [null, reach];
  for (const head of scatter.heads) {
    const at = spotOf(scatter, head);
    const away = Math.hypot(at.x - x, at.y - y);
    if (away < distance) [best, distance] = [head, away];
  }
  return best;
}

/** The heads between two corners, those that differ most first. */
export function within(scatter: Scatter, from: Spot, to: Spot): Pair[] {
  const between = (value: number, a: number, b: number): boolean => value >= Math.min(a, b) && value <= Math.max(a, b);
  return scatter.heads.filter((head) => {
    const at = spotOf(scatter, head);
    return between(at.x, from.x, to.x) && between(at.y, from.y, to.y);
  });
}

// The limit of a position map's colour scale, chosen so that one outlier does not make all other cells pale.
import { limitOf } from "./colours";

/** The scale covers this share of the columns' peaks. */
const QUANTILE = 0.99;
/** Values up to this many times the limit extend the scale; beyond that, they are clipped and marked. */
const FAR = 1.5;

/**
 * The limit of a diverging scale for `values` [row, column]. Each column counts once, by its peak: its largest absolute
 * value. The first column does not count, because models often put many times larger values at the first position. The
 * limit is the 99th percentile of the other peaks (so with up to 100 columns only the first can be clipped), and at
 * least the peak of the column `last`, which the target is about. Counting cells instead would clip it: where only the
 * last position has an answer, it has less than a hundredth of the cells. If no value exceeds 1.5 times the limit,
 * nothing is clipped. `clipped` in export/palette.py has the same rule.
 */
export function clippedLimit(
  values: Float32Array,
  columns: number,
  last: number | null,
  left: (column: number) => boolean = () => false,
): number {
  const peaks = Array.from({ length: columns }, () => 0);
  values.forEach((value, i) => {
    const column = i % columns;
    if (Number.isFinite(value) && Math.abs(value) > (peaks[column] ?? 0)) peaks[column] = Math.abs(value);
  });
  const known = peaks.map((_, column) => column).filter((column) => !left(column));
  const all = limitOf(known.map((column) => peaks[column] ?? 0));
  const others = known
    .slice(1)
    .map((column) => peaks[column] ?? 0)
    .sort((a, b) => a - b);
  if (others.length === 0) return all;
  const end = Math.max(
    others[Math.ceil(QUANTILE * others.length) - 1] ?? 0,
    last === null || left(last) ? 0 : (peaks[last] ?? 0),
  );
  return end > 0 && all > FAR * end ? end : all;
}

/** Whether a value lies beyond the ends of its scale; it is drawn in the colour of that end, with a mark. */
export function isBeyond(value: number, { low, high }: { low: number; high: number }): boolean {
  return value > high || value < low;
}

/** The labels of the two ends, with a sign if values lie beyond: "≤ −4.62", "≥ +4.62". */
export function endsOf(
  values: Float32Array,
  { low, high }: { low: number; high: number },
  write: (value: number) => string,
): [string, string] {
  return [
    `${values.some((value) => value < low) ? "≤ " : ""}${write(low)}`,
    `${values.some((value) => value > high) ? "≥ " : ""}${write(high)}`,
  ];
}

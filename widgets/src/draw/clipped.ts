// The limit of a position map's colour scale, chosen so that one outlier does not make all other cells pale.
import { limitOf } from "./colours";

/** This share of the columns' peaks lies within the limit. */
const QUANTILE = 0.99;
/** If a value exceeds this many times the limit, the scale ends at the limit. Otherwise the scale covers all values. */
const EXTENDED = 1.5;

/**
 * The limit of a diverging scale for `values` [row, column].
 *
 * Each column counts once, by its peak: its largest absolute value. The first column does not count, because values at
 * the first position are often many times larger. The limit is the 99th percentile of the other peaks, so with up to
 * 100 columns only the first can be clipped. The limit is never below the peak of the column `last`, at which the
 * target is read. If no value exceeds 1.5 times the limit, nothing is clipped. Columns for which `isLeftOut` is true do
 * not count at all, nor do columns before `from`. `clipped` in export/palette.py is the same rule without `from`.
 */
export function clippedLimit(
  values: Float32Array,
  columns: number,
  last: number | null,
  isLeftOut: (column: number) => boolean = () => false,
  from = 0,
): number {
  const peaks = Array.from({ length: columns }, () => 0);
  values.forEach((value, i) => {
    const column = i % columns;
    if (Number.isFinite(value) && Math.abs(value) > (peaks[column] ?? 0)) peaks[column] = Math.abs(value);
  });
  const real = peaks.map((_, column) => column).filter((column) => !isLeftOut(column));
  const included = real.filter((column) => column >= from);
  const largest = limitOf(included.map((column) => peaks[column] ?? 0));
  const others = included
    .filter((column) => column !== real[0])
    .map((column) => peaks[column] ?? 0)
    .sort((a, b) => a - b);
  if (others.length === 0) return largest;
  const limit = Math.max(
    others[Math.ceil(QUANTILE * others.length) - 1] ?? 0,
    last === null || isLeftOut(last) ? 0 : (peaks[last] ?? 0),
  );
  return limit > 0 && largest > EXTENDED * limit ? limit : largest;
}

/** Whether a value lies beyond the ends of its scale. Such a value has the colour of the end, and a mark. */
export function isBeyond(value: number, { low, high }: { low: number; high: number }): boolean {
  return value > high || value < low;
}

/** The labels of the two ends of a scale: "−4.62", "+4.62". If values lie beyond an end: "≤ −4.62", "≥ +4.62". */
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

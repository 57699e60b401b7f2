// Where the colours of a map of positions end, so that one outlier does not pale the rest.
import { limitOf } from "./colours";

/** Of the positions' peaks this share lies on the scale. */
const QUANTILE = 0.99;
/** What reaches so many times farther is worth a mark in place of a colour of its own. */
const FAR = 1.5;

/**
 * The end of a diverging scale for `values` [row, column]. Each column has one say: its peak, the largest absolute
 * value. The first column of a text is where models rest, often many times larger than all the rest, and says nothing;
 * of the other peaks the scale ends at the 99th percentile (so up to 100 columns nothing but the first is left out),
 * and never short of the column `last`, which is what is asked about. Cells would be the wrong voters: where only the
 * last position has an answer, what matters is less than a hundredth of them. If nothing reaches 1.5 times as far, all
 * of it is on the scale. The same rule as `clipped` in export/palette.py.
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

/** Whether a value lies beyond the ends of its scale: it has the end's colour, and a mark. */
export function isBeyond(value: number, { low, high }: { low: number; high: number }): boolean {
  return value > high || value < low;
}

/** The two ends as they are written, given what lies beyond them: "≤ −4.62", "≥ +4.62". */
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

// The heads with the largest positive and the largest negative contributions, and those that differ most between runs.
import { headName } from "../base/format";

export interface Value {
  name: string;
  value: number;
}

export function rank(values: Float32Array, heads: number, k: number): { plus: Value[]; minus: Value[] } {
  const all = Array.from(values, (value, i) => ({ name: headName(Math.floor(i / heads), i % heads), value }));
  const sorted = all.filter((r) => Number.isFinite(r.value)).sort((a, b) => b.value - a.value);
  return {
    plus: sorted.filter((r) => r.value > 0).slice(0, k),
    minus: sorted
      .filter((r) => r.value < 0)
      .reverse()
      .slice(0, k),
  };
}

export interface Pair {
  name: string;
  first: number;
  second: number;
  /** Second minus first. */
  value: number;
}

/** The heads whose values differ most, strongest first. */
export function mostDifferent(
  { first, second, difference }: Record<"first" | "second" | "difference", Float32Array>,
  heads: number,
  k: number,
): Pair[] {
  return Array.from(difference, (value, i) => ({
    name: headName(Math.floor(i / heads), i % heads),
    first: first[i] ?? NaN,
    second: second[i] ?? NaN,
    value,
  }))
    .filter(({ value }) => Number.isFinite(value) && value !== 0)
    .sort((a, b) => Math.abs(b.value) - Math.abs(a.value))
    .slice(0, k);
}

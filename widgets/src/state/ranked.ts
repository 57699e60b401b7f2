// The heads with the largest positive and the largest negative contributions.
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

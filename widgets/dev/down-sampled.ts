// What the kernel makes of a map of a long prompt, plainly: for the made-up kernel, and for the tests to compare with.
import { blocks, everything, type Frame, type Span, stepOf } from "../src/draw/plane";

interface Wanted {
  rows?: Span | null;
  columns?: Span | null;
  pool?: "peak" | "mean";
}

export function downSampled(
  size: number,
  values: Float32Array,
  { rows, columns, pool = "peak" }: Wanted,
): Frame & { values: Float32Array } {
  const all = everything(size);
  const [down, across] = [rows ?? all.rows, columns ?? all.columns];
  const step = stepOf(down.stop - down.start, across.stop - across.start);
  const out: number[] = [];
  for (let row = 0; row < blocks(down, step); row += 1)
    for (let column = 0; column < blocks(across, step); column += 1) {
      const cells: number[] = [];
      for (let q = down.start + row * step; q < Math.min(down.stop, down.start + (row + 1) * step); q += 1)
        for (
          let k = across.start + column * step;
          k < Math.min(across.stop, across.start + (column + 1) * step);
          k += 1
        )
          cells.push(values[q * size + k] ?? 0);
      const sum = cells.reduce((a, b) => a + b, 0);
      out.push(
        pool === "mean"
          ? sum / cells.length
          : cells.reduce((most, cell) => (Math.abs(cell) > Math.abs(most) ? cell : most), 0),
      );
    }
  return { rows: down, columns: across, step, values: Float32Array.from(out) };
}

// Source contributions as bars about a zero line, aligned with the columns of the matrix. If there are more bars than
// pixels, each pixel shows the tallest of its bars.

import { contextOf } from "./canvas";
import type { Theme } from "./colours";
import { css, divergingRgb } from "./colours";

export function paintSourceContributions(
  canvas: HTMLCanvasElement,
  contributions: Float32Array,
  limit: number,
  width: number,
  height: number,
  theme: Theme,
): void {
  const context = contextOf(canvas, width, height);
  if (!context || contributions.length === 0) return;
  const bars = contributions.length > canvas.width ? tallest(contributions, canvas.width) : contributions;
  const cell = width / bars.length;
  const gap = cell >= 9 ? 1 : cell >= 4 ? 0.5 : 0;
  const middle = height / 2;
  const [plus, minus] = [css(divergingRgb(0.72, 1, theme)), css(divergingRgb(-0.72, 1, theme))];
  context.fillStyle = theme === "dark" ? "#4a5158" : "#cfd2d2";
  context.fillRect(0, middle - 0.5, width, 1);
  for (let k = 0; k < bars.length; k += 1) {
    const value = bars[k] ?? 0;
    if (!Number.isFinite(value) || limit === 0) continue;
    const size = (Math.abs(value) / limit) * (middle - 1);
    if (size < 0.4) continue;
    context.fillStyle = value < 0 ? minus : plus;
    context.fillRect(k * cell + gap / 2, value > 0 ? middle - size : middle, Math.max(0.5, cell - gap), size);
  }
}

function tallest(values: Float32Array, count: number): Float32Array {
  const out = new Float32Array(count);
  for (let i = 0; i < values.length; i += 1) {
    const pixel = Math.floor((i * count) / values.length);
    const value = values[i] ?? 0;
    if (Math.abs(value) > Math.abs(out[pixel] ?? 0)) out[pixel] = value;
  }
  return out;
}

// What each source brings, as bars about a zero line, in the matrix' columns.
import type { Theme } from "../store";
import { penOf } from "./canvas";
import { css, divergingRgb } from "./colours";

export function paintBrings(canvas: HTMLCanvasElement, brings: Float32Array, limit: number, width: number, height: number, theme: Theme): void {
  const pen = penOf(canvas, width, height);
  if (!pen || brings.length === 0) return;
  const cell = width / brings.length;
  const gap = cell >= 9 ? 1 : cell >= 4 ? 0.5 : 0;
  const middle = height / 2;
  pen.fillStyle = theme === "dark" ? "#4a5158" : "#cfd2d2";
  pen.fillRect(0, middle - 0.5, width, 1);
  for (let k = 0; k < brings.length; k += 1) {
    const value = brings[k] ?? 0;
    if (!Number.isFinite(value) || limit === 0) continue;
    const size = (Math.abs(value) / limit) * (middle - 1);
    if (size < 0.4) continue;
    pen.fillStyle = css(divergingRgb(Math.sign(value) * 0.72, 1, theme));
    pen.fillRect(k * cell + gap / 2, value > 0 ? middle - size : middle, Math.max(0.5, cell - gap), size);
  }
}

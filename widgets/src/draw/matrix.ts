// Paints an attention matrix: rounded cells with gaps while they are large, one pixel block a cell when they are small,
// and the largest value under each pixel when there are more cells than pixels, so that no peak is lost.
import type { Theme } from "../store";
import { css, divergingRgb, limitOf, sequentialRgb } from "./colours";

export interface Matrix {
  size: number;
  /** [destination, source], row-major; NaN is left empty. */
  values: Float32Array;
}

function context(canvas: HTMLCanvasElement, width: number, height: number): CanvasRenderingContext2D | null {
  const ratio = Math.max(1, Math.min(3, window.devicePixelRatio || 1));
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen?.scale(ratio, ratio);
  return pen;
}

export function paintMatrix(canvas: HTMLCanvasElement, matrix: Matrix, side: number, theme: Theme): void {
  const pen = context(canvas, side, side);
  if (!pen || matrix.size === 0) return;
  const cell = side / matrix.size;
  if (cell >= 4) paintCells(pen, matrix, cell, theme);
  else paintPixels(pen, matrix, canvas.width, side, theme);
}

function paintCells(pen: CanvasRenderingContext2D, { size, values }: Matrix, cell: number, theme: Theme): void {
  const gap = cell >= 9 ? 1 : 0.5;
  const radius = cell >= 12 ? 2 : 0;
  for (let q = 0; q < size; q += 1) {
    for (let k = 0; k < size; k += 1) {
      const value = values[q * size + k] ?? NaN;
      if (Number.isNaN(value) || (k > q && value === 0)) continue; // a causal mask leaves its triangle empty
      pen.fillStyle = css(sequentialRgb(value, theme));
      pen.beginPath();
      pen.roundRect(k * cell + gap / 2, q * cell + gap / 2, cell - gap, cell - gap, radius);
      pen.fill();
    }
  }
}

function paintPixels(pen: CanvasRenderingContext2D, matrix: Matrix, pixels: number, side: number, theme: Theme): void {
  const { size, values } = matrix;
  const cells = Math.min(size, pixels);
  const peak = new Float32Array(cells * cells).fill(-1);
  for (let q = 0; q < size; q += 1) {
    const row = Math.floor((q * cells) / size) * cells;
    for (let k = 0; k < size; k += 1) {
      const value = values[q * size + k] ?? NaN;
      if (Number.isNaN(value) || (k > q && value === 0)) continue;
      const at = row + Math.floor((k * cells) / size);
      if (value > (peak[at] ?? -1)) peak[at] = value;
    }
  }
  const image = new ImageData(cells, cells);
  for (let i = 0; i < peak.length; i += 1) {
    const value = peak[i] ?? -1;
    if (value < 0) continue;
    const [r, g, b] = sequentialRgb(value, theme);
    image.data.set([r, g, b, 255], i * 4);
  }
  const stage = document.createElement("canvas");
  stage.width = cells;
  stage.height = cells;
  stage.getContext("2d")?.putImageData(image, 0, 0);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(stage, 0, 0, side, side);
}

/** What each source brings, as bars about a zero line, in the matrix' columns. */
export function paintBrings(canvas: HTMLCanvasElement, brings: Float32Array, width: number, height: number, theme: Theme, line: string): void {
  const pen = context(canvas, width, height);
  if (!pen || brings.length === 0) return;
  const limit = limitOf(brings);
  const cell = width / brings.length;
  const gap = cell >= 9 ? 1 : cell >= 4 ? 0.5 : 0;
  const middle = height / 2;
  pen.fillStyle = line;
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

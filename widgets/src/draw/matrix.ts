// Paints an attention matrix, or a part of it. Large cells are rounded, have gaps, and show their values if there is
// room; small cells are plain blocks. If there are more cells than pixels, each pixel shows the value farthest from
// zero, so that no peak is lost. For a long prompt the cells are blocks, and finer blocks of a part are painted over
// them.
import { penOf } from "./canvas";
import { css, type Rgb } from "./colours";
import { inkOn } from "./ink";
import { blocks, covers, type Plane } from "./plane";
import type { Part } from "./zoom";

export interface Look {
  colour: (value: number) => Rgb;
  write: (value: number, digits: number) => string;
  /** The preferred number of digits, and the value whose text is the widest. */
  digits: number;
  widest: number;
}

/** The smallest cell, in CSS pixels, in which a value is written. */
export const READABLE = 26;

/**
 * Whether a cell is masked: NaN, or a zero above the diagonal. For blocks of size `step`, q and k are their first
 * cells.
 */
export function isEmpty(value: number, q: number, k: number, step = 1): boolean {
  return Number.isNaN(value) || (value === 0 && k > q + step - 1);
}

/** Paints the planes on top of each other, the coarsest first. */
export function paintMatrix(canvas: HTMLCanvasElement, planes: Plane[], side: number, look: Look, part: Part): void {
  const pen = penOf(canvas, side, side);
  if (!pen || part.span === 0) return;
  const from = planes.findLastIndex((plane) => covers(plane, part));
  for (const plane of planes.slice(Math.max(0, from))) paintPlane(pen, plane, part, side, look);
}

function paintPlane(pen: CanvasRenderingContext2D, plane: Plane, part: Part, side: number, look: Look): void {
  const window = visible(plane, part);
  if (window.rows <= 0 || window.columns <= 0) return;
  if ((side / part.span) * plane.step >= 4) paintCells(pen, plane, window, part, side / part.span, look);
  else paintPixels(pen, plane, window, part, side, look);
}

interface Window {
  /** All four are counted in blocks. */
  row: number;
  column: number;
  rows: number;
  columns: number;
}

function visible({ rows, columns, step }: Plane, { left, top, span }: Part): Window {
  const from = (start: number, at: number): number => Math.max(0, Math.floor((at - start) / step));
  const [row, column] = [from(rows.start, top), from(columns.start, left)];
  const to = (of: typeof rows, at: number): number =>
    Math.min(blocks(of, step), Math.ceil((at + span - of.start) / step));
  return { row, column, rows: to(rows, top) - row, columns: to(columns, left) - column };
}

function paintCells(
  pen: CanvasRenderingContext2D,
  plane: Plane,
  window: Window,
  { left, top }: Part,
  scale: number,
  look: Look,
): void {
  const { values, step } = plane;
  const wide = blocks(plane.columns, step);
  const cell = scale * step;
  const gap = cell >= 9 ? 1 : 0.5;
  const radius = cell >= 12 ? 2 : 0;
  const digits = fitting(pen, cell, look);
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  for (let r = window.row; r < window.row + window.rows; r += 1) {
    const q = plane.rows.start + r * step;
    for (let c = window.column; c < window.column + window.columns; c += 1) {
      const k = plane.columns.start + c * step;
      const value = values[r * wide + c] ?? NaN;
      if (isEmpty(value, q, k, step)) continue;
      const ground = look.colour(value);
      const [x, y] = [(k - left) * scale, (q - top) * scale];
      pen.fillStyle = css(ground);
      pen.beginPath();
      pen.roundRect(x + gap / 2, y + gap / 2, cell - gap, cell - gap, radius);
      pen.fill();
      if (digits === null) continue;
      pen.fillStyle = inkOn(ground);
      pen.fillText(look.write(value, digits), x + cell / 2, y + cell / 2);
    }
  }
}

/**
 * Sets the font size at which every value fits into a cell, and returns the number of digits; null if there is no room.
 */
function fitting(pen: CanvasRenderingContext2D, cell: number, { write, digits, widest }: Look): number | null {
  if (cell < READABLE) return null;
  for (let tried = digits; tried > 0; tried -= 1) {
    const text = write(widest, tried);
    if (text === write(0, tried)) return null; // all values would read zero
    for (const size of [12, 11, 10, 9]) {
      pen.font = `${size}px system-ui, sans-serif`;
      if (pen.measureText(text).width <= cell - 3) return tried;
    }
  }
  return null;
}

function paintPixels(
  pen: CanvasRenderingContext2D,
  plane: Plane,
  window: Window,
  { left, top, span }: Part,
  side: number,
  look: Look,
): void {
  const { values, step } = plane;
  const wide = blocks(plane.columns, step);
  const fine = pen.canvas.width; // device pixels
  const across = Math.min(window.columns, Math.max(1, Math.round((fine * window.columns * step) / span)));
  const down = Math.min(window.rows, Math.max(1, Math.round((fine * window.rows * step) / span)));
  const peak = new Float32Array(across * down).fill(NaN);
  const at = Uint32Array.from({ length: window.columns }, (_, c) => Math.floor((c * across) / window.columns));
  for (let r = 0; r < window.rows; r += 1) {
    const row = Math.floor((r * down) / window.rows) * across;
    const from = (window.row + r) * wide + window.column;
    const q = plane.rows.start + (window.row + r) * step;
    for (let c = 0; c < window.columns; c += 1) {
      const value = values[from + c] ?? NaN;
      if (value === 0 ? isEmpty(value, q, plane.columns.start + (window.column + c) * step, step) : Number.isNaN(value))
        continue;
      const pixel = row + (at[c] ?? 0);
      if (!(Math.abs(value) <= Math.abs(peak[pixel] ?? NaN))) peak[pixel] = value;
    }
  }
  const stage = asImage(peak, across, down, look.colour);
  const scale = side / span;
  const [x, y] = [plane.columns.start + window.column * step - left, plane.rows.start + window.row * step - top];
  pen.imageSmoothingEnabled = false;
  pen.drawImage(stage, x * scale, y * scale, window.columns * step * scale, window.rows * step * scale);
}

/** An image with one pixel for each value; NaN stays transparent. */
function asImage(
  values: Float32Array,
  width: number,
  height: number,
  colour: (value: number) => Rgb,
): HTMLCanvasElement {
  const image = new ImageData(width, height);
  const data = image.data;
  for (let i = 0; i < values.length; i += 1) {
    const value = values[i] ?? NaN;
    if (Number.isNaN(value)) continue;
    const [r, g, b] = colour(value);
    data[i * 4] = r;
    data[i * 4 + 1] = g;
    data[i * 4 + 2] = b;
    data[i * 4 + 3] = 255;
  }
  const stage = document.createElement("canvas");
  stage.width = width;
  stage.height = height;
  stage.getContext("2d")?.putImageData(image, 0, 0);
  return stage;
}

// Paints an attention matrix, or a part of it. Large cells are rounded, have gaps, and show their values if there is
// room. Small cells are plain. If there are more cells than pixels, each pixel shows the value farthest from zero, so
// that no peak is lost. For a long prompt, the matrix is down-sampled: one value stands for a block of cells. If a
// plane (`plane.ts`) with smaller blocks is loaded for a part of the matrix, it is painted over the coarser plane.
import { contextOf } from "./canvas";
import { css, type Rgb } from "./colours";
import { inkOn } from "./ink";
import { blocks, covers, type Plane } from "./plane";
import type { Part } from "./zoom";

/** How the cells of a map are drawn. */
export interface Look {
  colour: (value: number) => Rgb;
  write: (value: number, digits: number) => string;
  /** The preferred number of digits. */
  digits: number;
  /** The value whose text is the widest. */
  widest: number;
}

/** The smallest cell, in CSS pixels, in which a value is written. */
export const READABLE = 26;

/**
 * Whether a cell is masked: its value is NaN, or zero above the diagonal. For a block of `step` × `step` cells, `q` and
 * `k` are its first row and column.
 */
export function isMasked(value: number, q: number, k: number, step = 1): boolean {
  return Number.isNaN(value) || (value === 0 && k > q + step - 1);
}

/** Paints the planes on top of each other, the coarsest first. */
export function paintMatrix(canvas: HTMLCanvasElement, planes: Plane[], side: number, look: Look, part: Part): void {
  const context = contextOf(canvas, side, side);
  if (!context || part.span === 0) return;
  const from = planes.findLastIndex((plane) => covers(plane, part));
  for (const plane of planes.slice(Math.max(0, from))) paintPlane(context, plane, part, side, look);
}

function paintPlane(context: CanvasRenderingContext2D, plane: Plane, part: Part, side: number, look: Look): void {
  const window = visibleBlocks(plane, part);
  if (window.rows <= 0 || window.columns <= 0) return;
  if ((side / part.span) * plane.step >= 4) paintCells(context, plane, window, part, side / part.span, look);
  else paintPixels(context, plane, window, part, side, look);
}

/** The visible blocks of a plane: the indices of the first row and column, and how many there are. */
interface BlockWindow {
  row: number;
  column: number;
  rows: number;
  columns: number;
}

function visibleBlocks({ rows, columns, step }: Plane, { left, top, span }: Part): BlockWindow {
  const from = (start: number, position: number): number => Math.max(0, Math.floor((position - start) / step));
  const [row, column] = [from(rows.start, top), from(columns.start, left)];
  const to = (of: typeof rows, position: number): number =>
    Math.min(blocks(of, step), Math.ceil((position + span - of.start) / step));
  return { row, column, rows: to(rows, top) - row, columns: to(columns, left) - column };
}

function paintCells(
  context: CanvasRenderingContext2D,
  plane: Plane,
  window: BlockWindow,
  { left, top }: Part,
  scale: number,
  look: Look,
): void {
  const { values, step } = plane;
  const perRow = blocks(plane.columns, step);
  const cell = scale * step;
  const gap = cell >= 9 ? 1 : 0.5;
  const radius = cell >= 12 ? 2 : 0;
  const digits = chooseFont(context, cell, look);
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (let r = window.row; r < window.row + window.rows; r += 1) {
    const q = plane.rows.start + r * step;
    for (let c = window.column; c < window.column + window.columns; c += 1) {
      const k = plane.columns.start + c * step;
      const value = values[r * perRow + c] ?? NaN;
      if (isMasked(value, q, k, step)) continue;
      const background = look.colour(value);
      const [x, y] = [(k - left) * scale, (q - top) * scale];
      context.fillStyle = css(background);
      context.beginPath();
      context.roundRect(x + gap / 2, y + gap / 2, cell - gap, cell - gap, radius);
      context.fill();
      if (digits === null) continue;
      context.fillStyle = inkOn(background);
      context.fillText(look.write(value, digits), x + cell / 2, y + cell / 2);
    }
  }
}

/** Sets a font in which every value fits into a cell, and returns the number of digits; null if there is no room. */
function chooseFont(context: CanvasRenderingContext2D, cell: number, { write, digits, widest }: Look): number | null {
  if (cell < READABLE) return null;
  for (let count = digits; count > 0; count -= 1) {
    const text = write(widest, count);
    if (text === write(0, count)) return null; // all values would be written as zero
    for (const size of [12, 11, 10, 9]) {
      context.font = `${size}px system-ui, sans-serif`;
      if (context.measureText(text).width <= cell - 3) return count;
    }
  }
  return null;
}

function paintPixels(
  context: CanvasRenderingContext2D,
  plane: Plane,
  window: BlockWindow,
  { left, top, span }: Part,
  side: number,
  look: Look,
): void {
  const { values, step } = plane;
  const perRow = blocks(plane.columns, step);
  const devicePixels = context.canvas.width;
  const across = Math.min(window.columns, Math.max(1, Math.round((devicePixels * window.columns * step) / span)));
  const down = Math.min(window.rows, Math.max(1, Math.round((devicePixels * window.rows * step) / span)));
  const peak = new Float32Array(across * down).fill(NaN);
  const pixelColumn = Uint32Array.from({ length: window.columns }, (_, c) => Math.floor((c * across) / window.columns));
  for (let r = 0; r < window.rows; r += 1) {
    const row = Math.floor((r * down) / window.rows) * across;
    const from = (window.row + r) * perRow + window.column;
    const q = plane.rows.start + (window.row + r) * step;
    for (let c = 0; c < window.columns; c += 1) {
      const value = values[from + c] ?? NaN;
      if (
        value === 0 ? isMasked(value, q, plane.columns.start + (window.column + c) * step, step) : Number.isNaN(value)
      )
        continue;
      const pixel = row + (pixelColumn[c] ?? 0);
      if (!(Math.abs(value) <= Math.abs(peak[pixel] ?? NaN))) peak[pixel] = value;
    }
  }
  const image = imageOf(peak, across, down, look.colour);
  const scale = side / span;
  const [x, y] = [plane.columns.start + window.column * step - left, plane.rows.start + window.row * step - top];
  context.imageSmoothingEnabled = false;
  context.drawImage(image, x * scale, y * scale, window.columns * step * scale, window.rows * step * scale);
}

/** An image with one pixel for each value; NaN stays transparent. */
function imageOf(
  values: Float32Array,
  width: number,
  height: number,
  colour: (value: number) => Rgb,
): HTMLCanvasElement {
  const pixels = new ImageData(width, height);
  const data = pixels.data;
  for (let i = 0; i < values.length; i += 1) {
    const value = values[i] ?? NaN;
    if (Number.isNaN(value)) continue;
    const [r, g, b] = colour(value);
    data[i * 4] = r;
    data[i * 4 + 1] = g;
    data[i * 4 + 2] = b;
    data[i * 4 + 3] = 255;
  }
  const image = document.createElement("canvas");
  image.width = width;
  image.height = height;
  image.getContext("2d")?.putImageData(pixels, 0, 0);
  return image;
}

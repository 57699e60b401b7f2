// Paints an attention matrix, or a part of it: rounded cells with gaps while they are large, with their values where there
// is room; one pixel block a cell when they are small, and where there are more cells than pixels the one farthest from
// zero under each pixel, so that no peak is lost.
import { penOf } from "./canvas";
import { css, type Rgb } from "./colours";
import { inkOn } from "./ink";
import { partOf, type Part } from "./zoom";

export interface Matrix {
  size: number;
  /** [destination, source], row-major; NaN is left empty. */
  values: Float32Array;
}
export interface Look {
  colour: (value: number) => Rgb;
  write: (value: number, digits: number) => string;
  /** How many digits are wished for, and the value that takes the most room. */
  digits: number;
  widest: number;
}

/** CSS pixels of a cell that has its value written in it. */
export const READABLE = 26;

/** A causal mask leaves its triangle empty. */
export function isEmpty(value: number, q: number, k: number): boolean {
  return Number.isNaN(value) || (k > q && value === 0);
}

export function paintMatrix(canvas: HTMLCanvasElement, matrix: Matrix, side: number, look: Look, part: Part = partOf(null, matrix.size)): void {
  const pen = penOf(canvas, side, side);
  if (!pen || part.span === 0) return;
  if (side / part.span >= 4) paintCells(pen, matrix, part, side / part.span, look);
  else paintPixels(pen, matrix, part, canvas.width, side, look);
}

function paintCells(pen: CanvasRenderingContext2D, { size, values }: Matrix, { left, top, span }: Part, cell: number, look: Look): void {
  const gap = cell >= 9 ? 1 : 0.5;
  const radius = cell >= 12 ? 2 : 0;
  const digits = fitting(pen, cell, look);
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  for (let q = top; q < top + span; q += 1) {
    for (let k = left; k < left + span; k += 1) {
      const value = values[q * size + k] ?? NaN;
      if (isEmpty(value, q, k)) continue;
      const ground = look.colour(value);
      const [x, y] = [(k - left) * cell, (q - top) * cell];
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

/** Sets a type in which every value fits into a cell, and says with how many digits; null where there is no room. */
function fitting(pen: CanvasRenderingContext2D, cell: number, { write, digits, widest }: Look): number | null {
  if (cell < READABLE) return null;
  for (let tried = digits; tried > 0; tried -= 1) {
    const text = write(widest, tried);
    if (text === write(0, tried)) return null; // all of them would read zero
    for (const size of [12, 11, 10, 9]) {
      pen.font = `${size}px system-ui, sans-serif`;
      if (pen.measureText(text).width <= cell - 3) return tried;
    }
  }
  return null;
}

function paintPixels(pen: CanvasRenderingContext2D, { size, values }: Matrix, { left, top, span }: Part, pixels: number, side: number, look: Look): void {
  const cells = Math.min(span, pixels);
  const peak = new Float32Array(cells * cells).fill(NaN);
  for (let q = top; q < top + span; q += 1) {
    const row = Math.floor(((q - top) * cells) / span) * cells;
    for (let k = left; k < left + span; k += 1) {
      const value = values[q * size + k] ?? NaN;
      if (isEmpty(value, q, k)) continue;
      const at = row + Math.floor(((k - left) * cells) / span);
      if (!(Math.abs(value) <= Math.abs(peak[at] ?? NaN))) peak[at] = value;
    }
  }
  const image = new ImageData(cells, cells);
  for (let i = 0; i < peak.length; i += 1) {
    const value = peak[i] ?? NaN;
    if (Number.isNaN(value)) continue;
    const [r, g, b] = look.colour(value);
    image.data.set([r, g, b, 255], i * 4);
  }
  const stage = document.createElement("canvas");
  stage.width = cells;
  stage.height = cells;
  stage.getContext("2d")?.putImageData(image, 0, 0);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(stage, 0, 0, side, side);
}

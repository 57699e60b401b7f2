// Paints a heat map: large cells are rounded and have gaps, small cells are plain blocks.
import { css, type Rgb } from "./colours";
import { inkOn } from "./ink";

export interface Grid {
  rows: number;
  columns: number;
  /** [row, column], row-major. A cell with NaN stays empty. */
  values: Float32Array;
}

/** Sets the size of a canvas in CSS pixels, and returns its context. Large canvases get a lower resolution. */
export function sizedContext(
  canvas: HTMLCanvasElement,
  width: number,
  height: number,
): CanvasRenderingContext2D | null {
  const ratio = Math.max(0.25, Math.min(3, window.devicePixelRatio || 1, 16_000 / Math.max(1, width, height)));
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context?.scale(ratio, ratio);
  return context;
}

/** Diagonal lines of this colour, in the cells for which `is` is true. */
export interface Hatch {
  colour: string;
  is: (index: number) => boolean;
}

/** Paints the cells. Those for which `isMarked` is true get a dot in the middle. */
export function paintGrid(
  canvas: HTMLCanvasElement,
  grid: Grid,
  cellWidth: number,
  cellHeight: number,
  colour: (value: number) => Rgb,
  isMarked: (value: number) => boolean = () => false,
  hatch: Hatch | null = null,
): void {
  const context = sizedContext(canvas, grid.columns * cellWidth, grid.rows * cellHeight);
  if (!context) return;
  const gap = (size: number): number => (size >= 7 ? 1 : size >= 5 ? 0.5 : 0);
  const [gapX, gapY] = [gap(cellWidth), gap(cellHeight)];
  const radius = Math.min(cellWidth, cellHeight) >= 12 ? 2 : 0;
  for (let row = 0; row < grid.rows; row += 1) {
    for (let column = 0; column < grid.columns; column += 1) {
      const value = grid.values[row * grid.columns + column] ?? NaN;
      if (Number.isNaN(value)) continue;
      const ground = colour(value);
      context.fillStyle = css(ground);
      context.beginPath();
      context.roundRect(
        column * cellWidth + gapX / 2,
        row * cellHeight + gapY / 2,
        cellWidth - gapX,
        cellHeight - gapY,
        radius,
      );
      context.fill();
      if (hatch?.is(row * grid.columns + column))
        paintHatch(context, column * cellWidth, row * cellHeight, cellWidth, cellHeight, hatch.colour);
      if (!isMarked(value)) continue;
      context.fillStyle = inkOn(ground);
      context.beginPath();
      context.arc(
        (column + 0.5) * cellWidth,
        (row + 0.5) * cellHeight,
        Math.min(2.5, 0.25 * Math.min(cellWidth, cellHeight)),
        0,
        2 * Math.PI,
      );
      context.fill();
    }
  }
}

function paintHatch(
  context: CanvasRenderingContext2D,
  x: number,
  y: number,
  width: number,
  height: number,
  colour: string,
): void {
  context.save();
  context.beginPath();
  context.rect(x, y, width, height);
  context.clip();
  context.beginPath();
  // All cells share one origin, so that the lines continue from cell to cell.
  for (let sum = Math.floor((x + y) / 5) * 5; sum < x + y + width + height; sum += 5) {
    context.moveTo(sum - y, y);
    context.lineTo(sum - y - height, y + height);
  }
  context.strokeStyle = colour;
  context.lineWidth = 1.4;
  context.stroke();
  context.restore();
}

/** Paints a bar for each column, up or down from a zero line. The values decide where the line is; NaN has no bar. */
export function paintColumns(
  canvas: HTMLCanvasElement,
  values: Float32Array,
  cellWidth: number,
  height: number,
  colour: (value: number) => string,
  lineColour: string,
): void {
  const context = sizedContext(canvas, Math.max(1, values.length * cellWidth), height);
  if (!context) return;
  const finite = values.filter(Number.isFinite);
  const high = finite.reduce((a, b) => Math.max(a, b), 0);
  const low = finite.reduce((a, b) => Math.min(a, b), 0);
  const y = (value: number): number => (high > low ? 1 + ((high - value) / (high - low)) * (height - 2) : height - 1);
  const gap = cellWidth >= 9 ? Math.min(6, cellWidth * 0.25) : cellWidth >= 4 ? 1 : 0;
  values.forEach((value, column) => {
    if (!Number.isFinite(value)) return;
    context.fillStyle = colour(value);
    context.fillRect(
      column * cellWidth + gap / 2,
      Math.min(y(0), y(value)),
      Math.max(0.5, cellWidth - gap),
      Math.abs(y(value) - y(0)),
    );
  });
  context.fillStyle = lineColour;
  context.fillRect(0, y(0) - 0.5, values.length * cellWidth, 1);
}

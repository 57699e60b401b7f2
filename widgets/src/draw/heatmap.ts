// Paints a heat map: large cells are rounded and have gaps, small cells are plain blocks.
import { css, type Rgb } from "./colours";
import { inkOn } from "./ink";

export interface Grid {
  rows: number;
  columns: number;
  /** [row, column], row-major; NaN is left empty. */
  values: Float32Array;
}

/** A drawing context in CSS pixels, at the resolution of the screen, within the largest canvas that browsers allow. */
export function penOn(canvas: HTMLCanvasElement, width: number, height: number): CanvasRenderingContext2D | null {
  const ratio = Math.max(0.25, Math.min(3, window.devicePixelRatio || 1, 16_000 / Math.max(1, width, height)));
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen?.scale(ratio, ratio);
  return pen;
}

/** Paints the cells; those that are `marked` get a dot in the middle. */
export function paintGrid(
  canvas: HTMLCanvasElement,
  grid: Grid,
  cellWidth: number,
  cellHeight: number,
  colour: (value: number) => Rgb,
  marked: (value: number) => boolean = () => false,
): void {
  const pen = penOn(canvas, grid.columns * cellWidth, grid.rows * cellHeight);
  if (!pen) return;
  const gap = (size: number): number => (size >= 7 ? 1 : size >= 5 ? 0.5 : 0);
  const [gapX, gapY] = [gap(cellWidth), gap(cellHeight)];
  const radius = Math.min(cellWidth, cellHeight) >= 12 ? 2 : 0;
  for (let row = 0; row < grid.rows; row += 1) {
    for (let column = 0; column < grid.columns; column += 1) {
      const value = grid.values[row * grid.columns + column] ?? NaN;
      if (Number.isNaN(value)) continue;
      const ground = colour(value);
      pen.fillStyle = css(ground);
      pen.beginPath();
      pen.roundRect(
        column * cellWidth + gapX / 2,
        row * cellHeight + gapY / 2,
        cellWidth - gapX,
        cellHeight - gapY,
        radius,
      );
      pen.fill();
      if (!marked(value)) continue;
      pen.fillStyle = inkOn(ground);
      pen.beginPath();
      pen.arc(
        (column + 0.5) * cellWidth,
        (row + 0.5) * cellHeight,
        Math.min(2.5, 0.25 * Math.min(cellWidth, cellHeight)),
        0,
        2 * Math.PI,
      );
      pen.fill();
    }
  }
}

/** Bars about a zero line, one for each column. The range of the values decides the height of the line; NaN has no bar. */
export function paintColumns(
  canvas: HTMLCanvasElement,
  values: Float32Array,
  cellWidth: number,
  height: number,
  colour: (value: number) => string,
  line: string,
): void {
  const pen = penOn(canvas, Math.max(1, values.length * cellWidth), height);
  if (!pen) return;
  const finite = values.filter(Number.isFinite);
  const high = finite.reduce((a, b) => Math.max(a, b), 0);
  const low = finite.reduce((a, b) => Math.min(a, b), 0);
  const y = (value: number): number => (high > low ? 1 + ((high - value) / (high - low)) * (height - 2) : height - 1);
  const gap = cellWidth >= 9 ? Math.min(6, cellWidth * 0.25) : cellWidth >= 4 ? 1 : 0;
  values.forEach((value, column) => {
    if (!Number.isFinite(value)) return;
    pen.fillStyle = colour(value);
    pen.fillRect(
      column * cellWidth + gap / 2,
      Math.min(y(0), y(value)),
      Math.max(0.5, cellWidth - gap),
      Math.abs(y(value) - y(0)),
    );
  });
  pen.fillStyle = line;
  pen.fillRect(0, y(0) - 0.5, values.length * cellWidth, 1);
}

// Paints a thumbnail of a head's attention, one pixel for each cell. The browser enlarges it.
import type { Rgb } from "./colours";
import { isMasked } from "./matrix";

/** The value of a cell that is not known. */
export const EMPTY = -128;

/** `cells` [side, side] are in units of 1/127 of `limit`, row-major. */
export function paintThumbnail(
  canvas: HTMLCanvasElement,
  cells: Int8Array,
  side: number,
  limit: number,
  colour: (value: number) => Rgb,
): void {
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  if (!context || side === 0) return;
  const image = new ImageData(side, side);
  const data = image.data;
  for (let i = 0; i < cells.length; i += 1) {
    const value = cells[i] === EMPTY ? NaN : ((cells[i] ?? 0) / 127) * limit;
    if (isMasked(value, Math.floor(i / side), i % side)) continue;
    const [r, g, b] = colour(value);
    data[i * 4] = r;
    data[i * 4 + 1] = g;
    data[i * 4 + 2] = b;
    data[i * 4 + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

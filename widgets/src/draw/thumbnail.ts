// Paints a thumbnail of a head's attention: one pixel for each cell; the browser enlarges it.
import type { Rgb } from "./colours";
import { isEmpty } from "./matrix";

/** `cells` [side, side] are in units of 1/127 of `limit`, row-major. */
export function paintThumbnail(
  canvas: HTMLCanvasElement,
  cells: Int8Array,
  side: number,
  limit: number,
  colour: (value: number) => Rgb,
): void {
  canvas.width = canvas.height = side;
  const pen = canvas.getContext("2d");
  if (!pen || side === 0) return;
  const image = new ImageData(side, side);
  const data = image.data;
  for (let at = 0; at < cells.length; at += 1) {
    const value = ((cells[at] ?? 0) / 127) * limit;
    if (isEmpty(value, Math.floor(at / side), at % side)) continue;
    const [r, g, b] = colour(value);
    data[at * 4] = r;
    data[at * 4 + 1] = g;
    data[at * 4 + 2] = b;
    data[at * 4 + 3] = 255;
  }
  pen.putImageData(image, 0, 0);
}

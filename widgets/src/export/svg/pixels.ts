// Draws a matrix with many cells as one image: a PNG inside the figure, with one pixel for each cell.
import type { Rgb } from "../../draw/colours";

const MOST = 1500;

/**
 * The image as a data URL; "" if there is no canvas. If there are more than MOST rows or columns, a pixel stands for
 * several cells, and shows the value that is farthest from zero.
 */
export function pixels(
  down: number,
  across: number,
  value: (row: number, column: number) => number,
  colour: (value: number) => Rgb,
): string {
  const [rows, columns] = [Math.min(down, MOST), Math.min(across, MOST)];
  const peaks = new Float32Array(rows * columns).fill(NaN);
  for (let q = 0; q < down; q += 1) {
    const row = Math.floor((q * rows) / down) * columns;
    for (let k = 0; k < across; k += 1) {
      const own = value(q, k);
      if (Number.isNaN(own)) continue;
      const at = row + Math.floor((k * columns) / across);
      const known = peaks[at] ?? NaN;
      if (Number.isNaN(known) || Math.abs(own) > Math.abs(known)) peaks[at] = own;
    }
  }
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const pen = canvas.getContext("2d");
  if (!pen) return "";
  const image = pen.createImageData(columns, rows);
  peaks.forEach((own, i) => image.data.set(Number.isNaN(own) ? [255, 255, 255, 255] : [...colour(own), 255], i * 4));
  pen.putImageData(image, 0, 0);
  return canvas.toDataURL("image/png");
}

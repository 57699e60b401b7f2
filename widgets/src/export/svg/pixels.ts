// A matrix too large for marks as one picture: a pixel a cell, as a PNG that travels inside the figure.
import type { Rgb } from "../../draw/colours";

const MOST = 1500;

/** A data address; "" where there is no canvas. Larger ones show the value that is farthest from zero among several. */
export function pixels(size: number, values: Float32Array, colour: (value: number) => Rgb): string {
  const cells = Math.min(size, MOST);
  const peaks = new Float32Array(cells * cells).fill(NaN);
  for (let q = 0; q < size; q += 1) {
    const row = Math.floor((q * cells) / size) * cells;
    for (let k = 0; k < size; k += 1) {
      const value = values[q * size + k] ?? NaN;
      if (Number.isNaN(value) || (k > q && value === 0)) continue;
      const at = row + Math.floor((k * cells) / size);
      const known = peaks[at] ?? NaN;
      if (Number.isNaN(known) || Math.abs(value) > Math.abs(known)) peaks[at] = value;
    }
  }
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = cells;
  const pen = canvas.getContext("2d");
  if (!pen) return "";
  const image = pen.createImageData(cells, cells);
  peaks.forEach((value, i) => image.data.set(Number.isNaN(value) ? [255, 255, 255, 255] : [...colour(value), 255], i * 4));
  pen.putImageData(image, 0, 0);
  return canvas.toDataURL("image/png");
}

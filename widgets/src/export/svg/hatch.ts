// The hatching of estimates.
import type { Sheet } from "./sheet";

/** Diagonal lines over a cell. */
export function hatch(sheet: Sheet, x: number, y: number, width: number, height: number): void {
  const lines: string[] = [];
  const step = 2.4;
  for (let sum = Math.ceil((x + y) / step) * step; sum < x + y + width + height; sum += step) {
    const [top, left] = [Math.min(x + width, sum - y), Math.max(x, sum - y - height)];
    lines.push(`M${top.toFixed(2)} ${(sum - top).toFixed(2)}L${left.toFixed(2)} ${(sum - left).toFixed(2)}`);
  }
  sheet.path(lines.join(""), 'class="hatch" fill="none" stroke="#ffffff" stroke-width="0.8"');
}

// Text on a colour is black or white, whichever has more contrast. The contrast is at least 4.5 to 1.
import type { Rgb } from "./colours";

/** Relative luminance, as WCAG defines it. */
export function luminance([r, g, b]: Rgb): number {
  const linear = (byte: number): number => {
    const c = byte / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  };
  return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
}

export function inkOn(rgb: Rgb): "#000" | "#fff" {
  return luminance(rgb) > 0.179 ? "#000" : "#fff";
}

// Colour scales, safe for colour-blind readers. The diverging scale is centred at zero: blue is positive, orange is
// negative. The sequential scale is teal, from 0 to 1. For speed, colours are read from tables of 256 colours. The
// sequential scale has one table, the diverging scale has one for each sign.

import { DIVERGING, SEQUENTIAL, type Stop } from "../base/look.gen";

export type Theme = keyof typeof DIVERGING;
export type Rgb = readonly [number, number, number];

function rgb(hex: string): Rgb {
  const n = parseInt(hex.slice(1), 16);
  return [(n >> 16) & 255, (n >> 8) & 255, n & 255];
}

function table(stops: Stop[]): Rgb[] {
  return Array.from({ length: 256 }, (_, i) => {
    const t = i / 255;
    const upper = stops.findIndex(([position]) => position >= t);
    const [b, colourB] = stops[upper === -1 ? stops.length - 1 : upper] ?? [1, "#000000"];
    const [a, colourA] = stops[Math.max(0, (upper === -1 ? stops.length : upper) - 1)] ?? [0, "#000000"];
    const u = b === a ? 0 : (t - a) / (b - a);
    const from = rgb(colourA);
    const to = rgb(colourB);
    const mix = (k: 0 | 1 | 2): number => Math.round(from[k] + (to[k] - from[k]) * u);
    return [mix(0), mix(1), mix(2)] as const;
  });
}

const tables = new Map<string, Rgb[]>();
function lookup(name: string, stops: () => Stop[]): Rgb[] {
  let colours = tables.get(name);
  if (!colours) tables.set(name, (colours = table(stops())));
  return colours;
}

const BLACK: Rgb = [0, 0, 0];
function colourAt(colours: Rgb[], t: number): Rgb {
  return colours[Math.round(Math.min(1, Math.max(0, t)) * 255)] ?? BLACK;
}

/** The colour of `value` on a scale that is symmetric about zero: ±`limit`. */
export function divergingRgb(value: number, limit: number, theme: Theme): Rgb {
  const side = value < 0 ? "minus" : "plus";
  const { middle, [side]: stops } = DIVERGING[theme];
  const colours = lookup(`${theme} ${side}`, () => [[0, middle], ...stops]);
  return colourAt(colours, limit > 0 && Number.isFinite(value) ? Math.abs(value) / limit : 0);
}

/** The colour of a value from 0 to 1. */
export function sequentialRgb(value: number, theme: Theme): Rgb {
  return colourAt(
    lookup(`${theme} sequential`, () => SEQUENTIAL[theme]),
    value,
  );
}

export function css([r, g, b]: Rgb): string {
  return `rgb(${r} ${g} ${b})`;
}

/** The limit of a diverging scale: the largest finite absolute value. */
export function limitOf(values: ArrayLike<number>): number {
  let limit = 0;
  for (let i = 0; i < values.length; i += 1) {
    const size = Math.abs(values[i] ?? 0);
    if (Number.isFinite(size) && size > limit) limit = size;
  }
  return limit;
}

/** A CSS gradient of the sequential scale, from 0 to 1. */
export function sequentialGradient(theme: Theme): string {
  return (
    `linear-gradient(to right, ` +
    `${Array.from({ length: 25 }, (_, i) => css(sequentialRgb(i / 24, theme))).join(", ")})`
  );
}

/** A CSS gradient of the diverging scale, from −limit at the bottom to +limit at the top. */
export function divergingGradient(theme: Theme): string {
  const steps = 24;
  const colours = Array.from({ length: 2 * steps + 1 }, (_, i) => css(divergingRgb(i - steps, steps, theme)));
  return `linear-gradient(to top, ${colours.join(", ")})`;
}

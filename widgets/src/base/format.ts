// How numbers, tokens and heads are written on screen.
import { codeOf, cut, isolated } from "./legible";
import { MARKS } from "./look.gen";

// Numbers that are shown together (in a map, a ranking, a chart) have the same number of decimals. The number farthest
// from zero decides how many. `base/signed.py` does the same in Python; tests/texts/figures.json tests both.

/** If the largest of the numbers is below SMALL, or at least LARGE, they are written with a power of ten. */
const [SMALL, LARGE] = [1e-4, 1e7];
/**
 * A small number among large ones gets more decimals, so that its first digit is shown. But a number that would be 0
 * even with this many more decimals is written as 0.
 */
const EXTRA_DECIMALS = 2;

/** The number of decimals: two from 0.1 to 100, more below, fewer above. */
function decimals(largest: number): number {
  if (largest >= 100) return largest >= 1000 ? 0 : 1;
  return 2 + (largest > 0 ? [0.1, 0.01, 0.001].filter((bound) => largest < bound).length : 0);
}

/** The larger absolute value of the two numbers. A `largest` that is not finite is ignored. */
function largerSize(value: number, largest: number): number {
  return Math.max(Math.abs(value), Number.isFinite(largest) ? Math.abs(largest) : 0);
}

/** An absolute value: "4.62", "0.0039", "1834"; `more` adds decimals. */
export function plain(value: number, largest: number, more = 0): string {
  if (!Number.isFinite(value)) return "not known";
  const [size, most] = [Math.abs(value), largerSize(value, largest)];
  if (most >= LARGE || (most > 0 && most < SMALL))
    return size === 0 ? "0" : size.toExponential(1 + Math.max(0, more)).replace("-", "−");
  const digits = Math.max(0, decimals(most) + more);
  const rounded = size.toFixed(digits);
  if (Number(rounded) !== 0 || size < 0.5 * 10 ** -(digits + EXTRA_DECIMALS))
    return digits === 0 ? counted(Number(rounded)) : rounded;
  return size.toFixed(Math.ceil(-Math.log10(size)));
}

/**
 * A number with its sign: "+4.62", "−1.47", "−0.003". The minus is "−", not a hyphen. `largest` is the number farthest
 * from zero among those shown together, and decides the decimals. A small number gets a few more decimals, to show its
 * first digit. A number that rounds to zero has no sign: "0.00".
 */
export function signed(value: number, largest: number, more = 0): string {
  const text = plain(value, largest, more);
  return Number.isFinite(value) && /[1-9]/.test(text) ? (value < 0 ? "−" : "+") + text : text;
}

/** The CSS class for the sign of a written number; "" if the text has no sign. */
export function side(written: string): "rs-plus" | "rs-minus" | "" {
  return written.startsWith("+") ? "rs-plus" : written.startsWith("−") ? "rs-minus" : "";
}

/**
 * Whether a number would be written as zero beside `largest`, if small numbers got no extra decimals. If `largest` is
 * written with a power of ten, numbers below a thousandth of it vanish.
 */
export function vanishes(value: number, largest: number, more = 0): boolean {
  const most = largerSize(value, largest);
  return (
    value === 0 ||
    Math.abs(value) < (most < SMALL || most >= LARGE ? most / 1000 : 0.5 * 10 ** -(decimals(most) + more))
  );
}

export { cut };

/** A token for the screen: white space made visible, cut to a readable length, and safe next to other text. */
export function visible(text: string): string {
  return text === "" ? "∅" : isolated(cut(text).replace(/\p{Zs}|[\n\r\t]/gu, (c) => MARKS[c] ?? codeOf(c)));
}

/** A token for screen readers: without the white-space marks, unless the token has nothing else. */
export function spoken(text: string): string {
  const trimmed = text.trim();
  return trimmed === "" ? visible(text) : isolated(cut(trimmed));
}

/** A token in quotes, for use inside a sentence: right-to-left text stays inside the quotes. */
export function quoted(text: string): string {
  return `“${isolated(text)}”`;
}

/** A number as a subscript: "₁₀". */
export function subscript(number: number): string {
  return String(number).replace(/\d/g, (digit) => String.fromCharCode(0x2080 + Number(digit)));
}

/** Words with tokens. If a token is "∗₁₀" (the prompts differ at position 10), an explanation of this mark is added. */
export function starred(words: string): string {
  return words.includes("∗")
    ? `${words} (∗ is a token in which the prompts differ; the small number is its position)`
    : words;
}

export interface Head {
  layer: number;
  head: number;
}

export function headName(layer: number, head: number): string {
  return `L${layer}H${head}`;
}

export function parseHead(name: string): Head | null {
  const match = /^L(\d+)H(\d+)$/.exec(name);
  return match ? { layer: Number(match[1]), head: Number(match[2]) } : null;
}

/** A number of bytes: "512 bytes", "46 MB", "1.5 GB". */
export function bytes(count: number): string {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let value = count;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value < 9.95 && unit > 1 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** A count, with commas from 10,000 on: "1536", "46,080". */
export function counted(count: number): string {
  return count < 10_000 ? String(count) : String(count).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** The absolute value of an unexplained remainder: "0.35", "3e-6". */
export function amount(value: number): string {
  const size = Math.abs(value);
  return size === 0 ? "0" : size >= 0.001 ? String(Number(size.toPrecision(2))) : size.toExponential(0);
}

export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

// How numbers, tokens and heads are written on screen.
import { cut, isolated, sign } from "./legible";

/** "+4.62", "−1.47", "−0.003": the sign always shown, with a real minus; to its first digit where that comes late. */
export function signed(value: number, digits = 2): string {
  if (!Number.isFinite(value)) return "not known";
  const size = Math.abs(value);
  const rounded = size.toFixed(digits);
  const text = Number(rounded) !== 0 || size < 5e-5 ? rounded : size.toFixed(Math.ceil(-Math.log10(size)));
  return (value < 0 && Number(text) !== 0 ? "−" : "+") + text; // what rounds to nothing is not negative
}

export { cut };

const MARKS: Record<string, string> = { " ": "·", "\n": "↵", "\r": "␍", "\t": "⇥", "\u00a0": "⍽" };

/** A token with its white space made visible, not longer than can be read, and fit to be set beside anything. */
export function visible(text: string): string {
  return text === "" ? "∅" : isolated(cut(text).replace(/\p{Zs}|[\n\r\t]/gu, (c) => MARKS[c] ?? sign(c)));
}

/** A token as it is spoken: without the marks, unless nothing else is left. */
export function spoken(text: string): string {
  const trimmed = text.trim();
  return trimmed === "" ? visible(text) : isolated(cut(trimmed));
}

/** A token inside a sentence, in quotes: what runs from right to left stays inside them. */
export function quoted(text: string): string {
  return `“${isolated(text)}”`;
}

/** A number as a subscript: "₁₀". */
export function subscript(number: number): string {
  return String(number).replace(/\d/g, (digit) => String.fromCharCode(0x2080 + Number(digit)));
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

/** "1536", "46,080". */
export function counted(count: number): string {
  return count < 10_000 ? String(count) : String(count).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** How much is left over, without its sign: "0.35", "3e-6". */
export function amount(value: number): string {
  const size = Math.abs(value);
  return size === 0 ? "0" : size >= 0.001 ? String(Number(size.toPrecision(2))) : size.toExponential(0);
}

export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

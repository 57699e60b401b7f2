// Axes, colour bars and token labels of the figures.
import { type ScaleLinear, scaleLinear } from "d3-scale";
import { signed } from "../../base/format";
import { endsOf, isBeyond } from "../../draw/clipped";
import { divergingRgb, sequentialRgb } from "../../draw/colours";
import { inkOn } from "../../draw/ink";
import { layerTicks, percent } from "../../state/axis";
import type { Setting, TokenAt } from "../pictures";
import { MUTED, RULE, type Sheet } from "./sheet";
import { cut, widthOf } from "./xml";

export interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** The quantity with its unit: "logit difference (logits)". Others, such as attention scores, have no unit. */
export function withUnit(quantity: string): string {
  return quantity.includes("logit") ? `${quantity} (logits)` : quantity;
}

/** A quantity's name. If runs are compared, the run is added: "B − A of the logit", "the logit in A". */
export function ofRun(name: string, { compared }: Setting): string {
  if (!compared) return name;
  return compared.run === "difference" ? `B − A of ${name}` : `${name} in ${compared.run === "first" ? "A" : "B"}`;
}

/** The names of two compared runs, for a caption. */
export function runLines({ compared }: Setting): string[] {
  return compared ? [`A: ${compared.first}`, `B: ${compared.second}`] : [];
}

export function number(value: number): string {
  return String(value).replace("-", "−");
}

/** A scale that includes zero and all values, with a margin. */
export function scaleOf(values: number[], { y, height }: Box): ScaleLinear<number, number> {
  const known = values.filter(Number.isFinite);
  const low = known.reduce((least, value) => Math.min(least, value), 0);
  const high = known.reduce((most, value) => Math.max(most, value), 0);
  const room = (high - low) * 0.06;
  return scaleLinear()
    .domain(low === high ? [-1, 1] : [low - room, high + room])
    .range([y + height, y]);
}

/** The frame of the lens and layer figures: the zero line, values on the left, layers below. */
export function layerAxes(
  sheet: Sheet,
  box: Box,
  scale: ScaleLinear<number, number>,
  layers: number,
  name: string,
): void {
  for (const tick of scale.ticks(4)) {
    sheet.line(box.x - 2.5, scale(tick), box.x, scale(tick), MUTED);
    sheet.text(box.x - 4.5, scale(tick) + 2.2, number(tick), { anchor: "end", fill: MUTED });
  }
  sheet.line(box.x, box.y, box.x, box.y + box.height, MUTED);
  sheet.line(box.x, scale(0), box.x + box.width, scale(0), RULE);
  for (const layer of layerTicks(layers)) {
    const x = box.x + (percent(layer + 0.5, layers) / 100) * box.width;
    sheet.text(x, box.y + box.height + 9, String(layer), { anchor: "middle", fill: MUTED });
  }
  axisNames(sheet, box, "layer", name);
}

/** Axis names: one below, and one upright at the left edge. */
export function axisNames(sheet: Sheet, box: Box, beneath: string, left: string, gap = 18): void {
  if (beneath) sheet.text(box.x + box.width / 2, box.y + box.height + gap, beneath, { anchor: "middle" });
  if (left) sheet.text(10, box.y + box.height / 2, left, { anchor: "middle", rotate: -90 });
}

export interface Colours {
  kind: "diverging" | "sequential";
  low: number;
  high: number;
  /** The values that are drawn. If some lie beyond an end of a diverging scale, its label begins with "≤" or "≥". */
  values?: Float32Array;
}

/** A caption line about the dots, if some values lie beyond the colours. */
export function beyondLine(colours: Colours, values: Float32Array): string[] {
  return values.some((value) => isBeyond(value, colours))
    ? [`a dot: beyond the colours, which end at ±${signed(colours.high, colours.high).slice(1)}`]
    : [];
}

/** Draws a dot if the value lies beyond the colours. */
export function beyondDot(
  sheet: Sheet,
  value: number,
  colours: Colours,
  x: number,
  y: number,
  width: number,
  height: number,
): void {
  if (isBeyond(value, colours))
    sheet.circle(
      x + width / 2,
      y + height / 2,
      Math.round(Math.min(1.6, 0.25 * Math.min(width, height)) * 100) / 100,
      inkOn(colourOf(value, colours)),
    );
}

export function colourOf(value: number, { kind, low, high }: Colours): readonly [number, number, number] {
  if (kind === "diverging") return divergingRgb(value, Math.max(Math.abs(low), Math.abs(high)), "light");
  return sequentialRgb(high > low ? (value - low) / (high - low) : 0, "light");
}

/** The labels of the two ends of the scale. */
export function ends({ kind, low, high, values = new Float32Array(0) }: Colours): [string, string] {
  const plain = (value: number): string => number(Number(value.toPrecision(3)));
  return kind === "diverging" && high > 0
    ? endsOf(values, { low, high }, (value) => signed(value, high))
    : [plain(low), plain(high)];
}

/** An upright colour bar with its ends and its name; about 45 points wide. */
export function colourBar(sheet: Sheet, x: number, y: number, height: number, colours: Colours, name: string): void {
  const { low, high, kind } = colours;
  const fill = sheet.gradient(`rs-${kind}-upright`, true, (t) => colourOf(low + t * (high - low), colours));
  sheet.rect(x, y, 6, height, fill);
  const [lowest, highest] = ends(colours);
  sheet.text(x + 9, y + 5, highest, { fill: MUTED });
  if (kind === "diverging") sheet.text(x + 9, y + height / 2 + 2.2, "0", { fill: MUTED });
  sheet.text(x + 9, y + height, lowest, { fill: MUTED });
  const size = Math.min(6.5, (height / widthOf(name)) * 0.98);
  const beside = x + 17 + Math.max(widthOf(lowest), widthOf(highest)) * 6.5;
  sheet.text(beside, y + height / 2, name, { anchor: "middle", rotate: -90, size: Math.max(4.5, size) });
}

/** A horizontal colour bar: name, lower end, bar, upper end. */
export function flatColourBar(sheet: Sheet, x: number, y: number, colours: Colours, name: string): void {
  const { low, high, kind } = colours;
  const fill = sheet.gradient(`rs-${kind}-flat`, false, (t) => colourOf(low + t * (high - low), colours));
  const [lowest, highest] = ends(colours);
  sheet.text(x, y, name, { size: 6.5 });
  let at = x + widthOf(name) * 6.5 + 6;
  sheet.text(at, y, lowest, { fill: MUTED });
  at += widthOf(lowest) * 6.5 + 3;
  sheet.rect(at, y - 5, 60, 5.5, fill);
  sheet.text(at + 63, y, highest, { fill: MUTED });
}

/** Token labels along an axis. If there are many, only some are shown. The marked label is always shown, in bold. */
export function tokenLabels(
  tokens: TokenAt[],
  count: number,
  room: number,
  size: number,
  marked: number | null,
): { at: number; text: string; bold: boolean }[] {
  const step = Math.max(1, Math.ceil((count * size * 1.05) / room));
  const labels: { at: number; text: string; bold: boolean }[] = [];
  for (let at = 0; at < count; at += 1) {
    const bold = at === marked;
    const near = marked !== null && !bold && Math.abs(at - marked) < step && step > 1;
    if (!bold && (at % step !== 0 || near)) continue;
    labels.push({ at, text: cut(tokens[at]?.shown ?? String(at), 10) + (tokens[at]?.mark ?? ""), bold });
  }
  return labels;
}

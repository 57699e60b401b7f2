// The head map (layer × head), coloured by contribution, effect or score, and the ranking as bars.

import { headName, plural, signed } from "../../base/format";
import { limitOf } from "../../draw/colours";
import { layerTicks } from "../../state/axis";
import { effectTitle } from "../../state/effect-words";
import { isEstimated } from "../../state/effects";
import type { HeadsPicture, Measured, RankingPicture, Setting } from "../pictures";
import {
  axisNames,
  type Box,
  beyondDot,
  beyondLine,
  type Colours,
  colourBar,
  colourOf,
  ofRun,
  runLines,
  withUnit,
} from "./axes";
import { hatch } from "./hatch";
import { hex, INK, MARGIN, MINUS, MUTED, PLUS, RULE, Sheet, SINGLE } from "./sheet";
import { cut } from "./xml";

const LEFT = 32;
const RIGHT = 52;

export function headsFigure(
  {
    layers,
    heads,
    values,
    score,
    feeds,
    pinned,
    runs,
    measured,
    empty = [],
    limit = limitOf(values.subarray(0, layers * heads)),
  }: HeadsPicture,
  setting: Setting,
): string {
  const shown = score ? score.values : values;
  const colours: Colours = score
    ? { kind: score.low < 0 ? "diverging" : "sequential", low: score.low, high: score.high }
    : { kind: "diverging", low: -limit, high: limit, values: shown.subarray(0, layers * heads) };
  const sheet = new Sheet(SINGLE);
  const what = feeds
    ? "what feeds a head"
    : score
      ? `${score.name} score`
      : runs
        ? ofRun(`what each adds to the ${setting.quantity}`, setting)
        : measured
          ? effectTitle(measured.effect, measured.found.isPutIn, setting.quantity)
          : `what each adds to the ${setting.quantity}`;
  const isHatched = (i: number): boolean => measured !== undefined && isEstimated(measured.found, measured.effect, i);
  const aboutRuns = measured ? effectLines(measured, setting) : [];
  const of = [feeds ?? setting.target, setting.place];
  const about = score && !feeds ? [score.meaning] : of; // a score has no target
  const marked = pinned.length > 0 && pinned.length <= 12 ? [`outlined: ${pinned.join(", ")}`] : [];
  const y = sheet.heading("Heads", what, [
    ...setting.source,
    ...about,
    ...(runs ? runLines(setting) : []),
    ...aboutRuns,
    ...marked,
    ...(empty.length > 0 ? [`empty: ${empty.join(", or ")}`] : []),
    ...(colours.values ? beyondLine(colours, colours.values) : []),
  ]);
  const room = SINGLE - LEFT - RIGHT;
  const tall = Math.min(205 / layers, Math.max(room / heads, 205 / layers / 3), 22);
  const broad = Math.min(room / heads, tall * 3);
  const box: Box = { x: LEFT, y, width: broad * heads, height: tall * layers };
  const gap = Math.min(broad, tall) > 6 ? 0.8 : Math.min(broad, tall) > 3 ? 0.4 : 0;
  const place = (layer: number, head: number): [number, number, number, number] => [
    box.x + head * broad,
    box.y + layer * tall,
    broad - gap,
    tall - gap,
  ];
  sheet.group("cells", () => {
    for (let i = 0; i < layers * heads; i += 1) {
      const value = shown[i] ?? NaN;
      const at = place(Math.floor(i / heads), i % heads);
      if (Number.isNaN(value)) sheet.rect(...at, "#ffffff", { stroke: RULE });
      else {
        sheet.rect(...at, hex(colourOf(value, colours)));
        if (isHatched(i)) hatch(sheet, ...at);
        if (colours.values) beyondDot(sheet, value, colours, ...at);
      }
    }
  });
  sheet.group("pinned", () => {
    for (let i = 0; i < layers * heads; i += 1) {
      const [layer, head] = [Math.floor(i / heads), i % heads];
      if (!pinned.includes(headName(layer, head))) continue;
      const [x, top, width, height] = place(layer, head);
      sheet.path(
        `M${(x - 0.4).toFixed(2)} ${(top - 0.4).toFixed(2)}h${(width + 0.8).toFixed(2)}` +
          `v${(height + 0.8).toFixed(2)}h${(-width - 0.8).toFixed(2)}z`,
        `fill="none" stroke="${INK}" stroke-width="1"`,
      );
    }
  });
  for (const layer of layerTicks(layers, 12))
    sheet.text(box.x - 4, box.y + (layer + 0.5) * tall + 2.2, String(layer), { anchor: "end", fill: MUTED });
  for (const head of layerTicks(heads, 16))
    sheet.text(box.x + (head + 0.5) * broad, box.y + box.height + 9, String(head), { anchor: "middle", fill: MUTED });
  axisNames(sheet, box, "head", "layer");
  const length = Math.max(40, Math.min(box.height, 130));
  colourBar(
    sheet,
    box.x + box.width + 10,
    box.y,
    length,
    colours,
    score ? `${score.name} score` : withUnit(setting.quantity),
  );
  return sheet.end(Math.max(box.y + box.height + 24, box.y + length + MARGIN), `Heads: ${what}`);
}

/** The caption lines about an effect: what is replaced, whether the replay was exact, how many are measured. */
export function effectLines({ found: { reply, isPutIn }, effect }: Measured, setting: Setting): string[] {
  const { replaced_by: by, replayed, done, total } = reply;
  const isWhole = effect !== "estimate" && done === total;
  return [
    ...(isPutIn ? runLines(setting) : []),
    ...(by ? [`replaced by ${by}`] : []),
    ...(replayed ? [replayed] : []),
    ...(isWhole
      ? []
      : [effect === "estimate" ? "hatched: estimated" : `${done} of ${total} measured; hatched: estimated`]),
  ];
}

const LINE = 11;

export function rankingFigure({ of, rows, effect }: RankingPicture, setting: Setting): string {
  const sheet = new Sheet(SINGLE);
  const spread = rows.some((row) => row.std !== null)
    ? [`lines: ± one standard deviation over ${plural(setting.prompts, "prompt")}`]
    : [];
  const compared = of === "heads" && rows.some(({ runs }) => runs !== undefined);
  const what = effect
    ? effectTitle(effect.effect, effect.found.isPutIn, setting.quantity)
    : `what each adds to the ${setting.quantity}`;
  const top =
    sheet.heading(`Top ${of}`, of === "heads" && !effect ? ofRun(what, setting) : what, [
      ...setting.source,
      setting.target,
      setting.place,
      ...(of === "heads" && (!effect || effect.found.isPutIn) ? runLines(setting) : []),
      ...(rows.some(({ isEstimate }) => isEstimate) ? ["hatched: estimated"] : []),
      ...(compared ? ["bars: B − A"] : []),
      ...spread,
    ]) + 4;
  const names = of === "heads" ? 30 : 46;
  const box: Box = {
    x: MARGIN + names,
    y: top - 6,
    width: SINGLE - 2 * MARGIN - names - 34,
    height: rows.length * LINE,
  };
  const reach = (side: 1 | -1): number => Math.max(0, ...rows.map(({ value, std }) => side * value + (std ?? 0)));
  const [low, high] = [-reach(-1), reach(1)];
  const scale = (value: number): number => box.x + ((value - low) / (high - low || 1)) * box.width;
  const largest = limitOf(rows.map(({ value }) => value));
  sheet.line(scale(0), box.y, scale(0), box.y + box.height, MUTED);
  sheet.group("bars", () => {
    rows.forEach(({ value, isEstimate }, i) => {
      const left = Math.min(scale(0), scale(value));
      const at = [left, box.y + i * LINE + 2.2, Math.abs(scale(value) - scale(0)), LINE - 4.4] as const;
      sheet.rect(...at, value < 0 ? MINUS : PLUS);
      if (isEstimate) hatch(sheet, ...at);
    });
  });
  rows.forEach(({ name, value, std }, i) => {
    const y = box.y + i * LINE + LINE / 2;
    if (std !== null) sheet.line(scale(value - std), y, scale(value + std), y, INK, 0.5);
    sheet.text(MARGIN, y + 2.2, cut(name, 12), { mono: true });
    sheet.text(SINGLE - MARGIN, y + 2.2, signed(value, largest), { anchor: "end" });
  });
  sheet.text(SINGLE - MARGIN, box.y + box.height + 9, withUnit(setting.quantity), { anchor: "end", fill: MUTED });
  return sheet.end(box.y + box.height + 15, `Top ${of}: ${what}`);
}

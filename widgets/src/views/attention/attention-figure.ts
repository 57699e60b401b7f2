// The exported figure of attention: matrices side by side, each 60 mm wide. Both axes have tokens. Bars below a matrix
// are the source contributions at the destination.

import { plain, side, signed } from "../../base/format";
import { limitOf } from "../../draw/colours";
import { isMasked } from "../../draw/matrix";
import { blocks, length, within } from "../../draw/plane";
import type { Setting } from "../../export/pictures";
import { type Colours, colourOf, flatColourBar, tokenLabels, withUnit } from "../../export/svg/axes";
import { pixels } from "../../export/svg/pixels";
import { hex, INK, MARGIN, MINUS, MUTED, PLUS, RULE, Sheet } from "../../export/svg/sheet";
import { cut, widthOf } from "../../export/svg/xml";
import type { Weighting } from "../../state/store";
import type { AttentionMap, AttentionPicture } from "./attention-picture";

export const PANEL = (60 * 72) / 25.4;
const LABELS = 44;
const SIDE = PANEL - LABELS - 8;
const BARS = 18;
const LINE = 14;
/** A matrix with more cells per side than this is embedded as one image; a smaller one has a mark for each cell. */
const MARKS = 150;
/** The largest number of characters of a name above a matrix. A longer name is cut; the caption has all of it. */
const NAME = 25;

const NAMES: Record<Weighting, (setting: Setting) => string> = {
  pattern: () => "attention",
  value: () => "attention × ‖v W_O‖",
  contribution: ({ quantity }) => `contribution to the ${withUnit(quantity)}`,
};

export function attentionFigure(
  { weighting, maps, ownRange, pool, notes = [] }: AttentionPicture,
  setting: Setting,
): string {
  const across = Math.min(3, Math.max(1, maps.length));
  const sheet = new Sheet(across * PANEL + 2 * MARGIN);
  const values = (map: AttentionMap): Float32Array => map.maps[weighting] ?? new Float32Array(0);
  const bars = maps.some((map) => map.sourceContributions)
    ? [`bars: what each source contributes to the ${setting.quantity}`]
    : [];
  const named = maps.flatMap(({ name }) => (name.length > NAME ? [name] : []));
  const parts = [...new Set(maps.map((map) => partWords(map, pool, setting.tokens.length).join("; ")).filter(Boolean))];
  const top =
    sheet.heading(
      "Attention",
      weighting === "pattern" && maps.every(sumsToOne) ? "each destination’s row sums to 1" : NAMES[weighting](setting),
      [...setting.source, setting.target, setting.place, ...parts, ...bars, ...named, ...notes],
    ) + 5;
  const all = Math.max(0, ...maps.map((map) => limitOf(values(map))));
  const coloursOf = (map: AttentionMap | null): Colours => {
    const limit = map && ownRange ? limitOf(values(map)) : weighting === "pattern" && !ownRange ? 1 : all;
    return weighting === "contribution"
      ? { kind: "diverging", low: -limit, high: limit }
      : { kind: "sequential", low: 0, high: limit };
  };
  const hasBars = maps.some((map) => map.sourceContributions);
  const tall = panelHeight(hasBars, ownRange);
  const largest = limitOf(maps.map(({ value }) => value ?? 0));
  maps.forEach((map, i) => {
    matrixPanel(
      sheet,
      MARGIN + (i % across) * PANEL,
      top + Math.floor(i / across) * tall,
      map,
      values(map),
      coloursOf(map),
      ownRange,
      largest,
      setting,
    );
  });
  let end = top + Math.ceil(maps.length / across) * tall;
  if (!ownRange)
    flatColourBar(
      sheet,
      MARGIN,
      (end += 2),
      coloursOf(null),
      weighting === "contribution" ? "contribution" : NAMES[weighting](setting),
    ); // “contribution” is enough: the heading names the quantity
  return sheet.end(end + (ownRange ? 0 : MARGIN + 2), `Attention of ${maps.map((map) => map.name).join(", ")}`);
}

/** Whether the rows of a pattern sum to 1. In a mean over padded prompts, they may not. Empty rows do not count. */
function sumsToOne({ rows, columns, step, maps: { pattern } }: AttentionMap): boolean {
  const wide = length(columns);
  if (!pattern || step > 1 || wide < length(rows)) return true; // a part of each row; in the model, a row sums to 1
  return Array.from({ length: length(rows) }, (_, q) => pattern.subarray(q * wide, (q + 1) * wide)).every((row) => {
    const known = row.filter((value) => !Number.isNaN(value));
    return known.length === 0 || Math.abs(known.reduce((sum, value) => sum + value, 0) - 1) < 0.01;
  });
}

/** The size of a drawn map; a single row or column is LINE points thick. */
function extent({ rows, columns }: AttentionMap): { wide: number; tall: number } {
  return {
    wide: length(columns) === 1 && length(rows) > 1 ? LINE : SIDE,
    tall: length(rows) === 1 && length(columns) > 1 ? LINE : SIDE,
  };
}

/** The height of a matrix with its labels, its bars, and its own colour bar. */
export function panelHeight(hasBars: boolean, ownRange: boolean): number {
  return 12 + LABELS + SIDE + (hasBars ? BARS + 8 : 0) + (ownRange ? 10 : 0) + 8;
}

/** Draws one matrix with its name, its tokens and its bars. */
export function matrixPanel(
  sheet: Sheet,
  x: number,
  y: number,
  map: AttentionMap,
  values: Float32Array,
  colours: Colours,
  ownRange: boolean,
  largest: number,
  setting: Setting,
): void {
  const { name, value, rows, columns, sourceContributions } = map;
  const { wide, tall } = extent(map);
  sheet.text(x, y, cut(name, NAME), { size: 7.5, bold: true, mono: true });
  const adds = value === null ? "" : signed(value, largest);
  if (adds)
    sheet.text(x + widthOf(name, true) * 7.5 + 5, y, adds, {
      size: 7.5,
      fill: { "rs-plus": PLUS, "rs-minus": MINUS, "": MUTED }[side(adds)],
    });
  sheet.text(x + LABELS + SIDE, y, "from (source)", { anchor: "end", fill: MUTED });
  const [left, top] = [x + LABELS, y + 4 + LABELS];
  // The size of one position.
  const unit = { x: wide / Math.max(1, length(columns)), y: tall / Math.max(1, length(rows)) };
  matrix(sheet, left, top, map, values, colours);
  sheet.path(`M${left} ${top}v${tall}h${wide}`, `fill="none" stroke="${RULE}" stroke-width="0.5"`);
  const written = (span: typeof rows, room: number, cell: number, marked: number | null): void => {
    const text = Math.min(6, Math.max(4, cell * 0.9));
    const tokens = setting.tokens.slice(span.start, span.stop);
    for (const { at, text: token, bold } of tokenLabels(
      tokens,
      length(span),
      room,
      text,
      marked === null ? null : marked - span.start,
    )) {
      if (span === columns)
        sheet.text(left + (at + 0.5) * cell + 1.5, top - 3, token, { size: text, mono: true, rotate: -55, bold });
      else
        sheet.text(left - 3, top + (at + 0.5) * cell + text * 0.35, token, {
          size: text,
          mono: true,
          anchor: "end",
          bold,
        });
    }
  };
  written(columns, wide, unit.x, null);
  written(rows, tall, unit.y, setting.destination);
  sheet.text(x + 3, top + Math.max(tall, 40) / 2, "to (destination)", { anchor: "middle", rotate: -90, fill: MUTED });
  const dest =
    setting.destination === null || !within(rows, setting.destination) ? null : setting.destination - rows.start;
  if (dest !== null && unit.y >= 2)
    sheet.path(
      `M${left} ${(top + dest * unit.y).toFixed(2)}h${wide}v${unit.y.toFixed(2)}h${-wide}z`,
      `fill="none" stroke="${INK}" stroke-width="0.7"`,
    );
  let below = top + tall + 6;
  if (sourceContributions) {
    contributionBars(sheet, left, below, sourceContributions);
    const limit = limitOf(sourceContributions);
    sheet.text(left - 3, below + 7.5, "contributes", { anchor: "end", size: 6, fill: MUTED });
    sheet.text(left - 3, below + 14.5, `±${plain(limit, limit)}`, { anchor: "end", size: 6, fill: MUTED });
    below += BARS + 6;
  }
  if (ownRange) flatColourBar(sheet, left, below + 6, colours, "");
}

function matrix(
  sheet: Sheet,
  left: number,
  top: number,
  map: AttentionMap,
  values: Float32Array,
  colours: Colours,
): void {
  const { rows, columns, step, name } = map;
  const { wide, tall } = extent(map);
  const [down, across] = [blocks(rows, step), blocks(columns, step)];
  const value = (row: number, column: number): number => {
    const own = values[row * across + column] ?? NaN;
    return isMasked(own, rows.start + row * step, columns.start + column * step, step) ? NaN : own;
  };
  if (Math.max(down, across) > MARKS) {
    const address = pixels(down, across, value, (own) => colourOf(own, colours));
    if (address) sheet.image(left, top, wide, tall, address);
    return;
  }
  const [w, h] = [wide / Math.max(1, across), tall / Math.max(1, down)];
  const cell = Math.min(w, h);
  const gap = cell > 5 ? 0.6 : cell > 2.5 ? 0.3 : 0;
  sheet.group(`cells cells-${name}`, () => {
    for (let q = 0; q < down; q += 1)
      for (let k = 0; k < across; k += 1) {
        const own = value(q, k);
        if (Number.isNaN(own)) continue;
        sheet.rect(
          left + k * w + gap / 2,
          top + q * h + gap / 2,
          w - gap,
          h - gap,
          hex(colourOf(own, colours)),
          cell > 7 ? { radius: 0.8 } : {},
        );
      }
  });
}

/**
 * Words for the caption. If only a part of the map is drawn: “destinations 512–1023, sources 0–511”. If each cell
 * stands for a block: “down-sampled: each cell is the strongest of 4 × 4”.
 */
function partWords({ rows, columns, step }: AttentionMap, pool: AttentionPicture["pool"], positions: number): string[] {
  const all = length(rows) === positions && length(columns) === positions;
  return [
    ...(all ? [] : [`destinations ${rows.start}–${rows.stop - 1}, sources ${columns.start}–${columns.stop - 1}`]),
    ...(step === 1
      ? []
      : [`down-sampled: each cell is the ${pool === "peak" ? "strongest" : "mean"} of ${step} × ${step}`]),
  ];
}

function contributionBars(sheet: Sheet, left: number, top: number, contributions: Float32Array): void {
  const limit = limitOf(contributions);
  const cell = SIDE / Math.max(1, contributions.length);
  const middle = top + BARS / 2;
  sheet.line(left, middle, left + SIDE, middle, RULE);
  sheet.group("source-contributions", () => {
    contributions.forEach((value, k) => {
      const height = limit > 0 && Number.isFinite(value) ? (Math.abs(value) / limit) * (BARS / 2) : 0;
      if (height < 0.1) return;
      const gap = cell > 3 ? 0.6 : 0;
      sheet.rect(
        left + k * cell + gap / 2,
        value > 0 ? middle - height : middle,
        Math.max(0.3, cell - gap),
        height,
        value > 0 ? PLUS : MINUS,
      );
    });
  });
}

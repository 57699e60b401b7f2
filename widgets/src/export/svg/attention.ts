// Attention matrices side by side, 60 mm each: tokens on both axes, and beneath what each source brings at the destination.
import { limitOf } from "../../draw/colours";
import { signed } from "../../format";
import type { Weighting } from "../../store";
import type { AttentionMap, AttentionPicture, Setting } from "../pictures";
import { colourOf, type Colours, flatColourBar, tokenLabels, withUnit } from "./axes";
import { pixels } from "./pixels";
import { hex, INK, MARGIN, MINUS, MUTED, PLUS, RULE, Sheet } from "./sheet";
import { cut, widthOf } from "./xml";

const PANEL = (60 * 72) / 25.4;
const LABELS = 44;
const SIDE = PANEL - LABELS - 8;
const BRINGS = 18;
/** More cells a side than this are one picture instead of so many marks. */
const MARKS = 150;
/** Characters of a name that stand beside “from (source)”; a longer one is told whole in the caption. */
const NAME = 25;

const NAMES: Record<Weighting, (setting: Setting) => string> = {
  pattern: () => "attention",
  value: () => "attention × ‖v W_O‖",
  contribution: ({ quantity }) => `contribution to the ${withUnit(quantity)}`,
};

export function attentionFigure({ weighting, maps, ownRange }: AttentionPicture, setting: Setting): string {
  const across = Math.min(3, Math.max(1, maps.length));
  const sheet = new Sheet(across * PANEL + 2 * MARGIN);
  const values = (map: AttentionMap): Float32Array => map.maps[weighting] ?? new Float32Array(0);
  const bars = maps.some((map) => map.brings) ? [`bars: what each source brings to the ${setting.quantity}`] : [];
  const named = maps.flatMap(({ name }) => (name.length > NAME ? [name] : []));
  const top = sheet.heading("Attention", weighting === "pattern" ? "each destination’s row sums to 1" : NAMES[weighting](setting), [...setting.source, setting.target, setting.place, ...bars, ...named]) + 5;
  const all = Math.max(0, ...maps.map((map) => limitOf(values(map))));
  const coloursOf = (map: AttentionMap | null): Colours => {
    const limit = map && ownRange ? limitOf(values(map)) : weighting === "pattern" && !ownRange ? 1 : all;
    return weighting === "contribution" ? { kind: "diverging", low: -limit, high: limit } : { kind: "sequential", low: 0, high: limit };
  };
  const tall = 12 + LABELS + SIDE + (maps.some((map) => map.brings) ? BRINGS + 8 : 0) + (ownRange ? 10 : 0) + 8;
  maps.forEach((map, i) => {
    panel(sheet, MARGIN + (i % across) * PANEL, top + Math.floor(i / across) * tall, map, values(map), coloursOf(map), ownRange, setting);
  });
  let end = top + Math.ceil(maps.length / across) * tall;
  if (!ownRange) flatColourBar(sheet, MARGIN, (end += 2), coloursOf(null), weighting === "contribution" ? "contribution" : NAMES[weighting](setting)); // to what, the heading says
  return sheet.end(end + (ownRange ? 0 : MARGIN + 2), `Attention of ${maps.map((map) => map.name).join(", ")}`);
}

function panel(sheet: Sheet, x: number, y: number, map: AttentionMap, values: Float32Array, colours: Colours, ownRange: boolean, setting: Setting): void {
  const { name, value, size, brings } = map;
  sheet.text(x, y, cut(name, NAME), { size: 7.5, bold: true, mono: true });
  if (value !== null) sheet.text(x + widthOf(name, true) * 7.5 + 5, y, signed(value), { size: 7.5, fill: value < 0 ? MINUS : PLUS });
  sheet.text(x + LABELS + SIDE, y, "from (source)", { anchor: "end", fill: MUTED });
  const [left, top] = [x + LABELS, y + 4 + LABELS];
  const cell = SIDE / Math.max(1, size);
  matrix(sheet, left, top, size, values, colours, name);
  sheet.path(`M${left} ${top}v${SIDE}h${SIDE}`, `fill="none" stroke="${RULE}" stroke-width="0.5"`);
  const text = Math.min(6, Math.max(4, cell * 0.9));
  for (const { at, text: token, bold } of tokenLabels(setting.tokens, size, SIDE, text, null)) {
    sheet.text(left + (at + 0.5) * cell + 1.5, top - 3, token, { size: text, mono: true, rotate: -55, bold });
  }
  for (const { at, text: token, bold } of tokenLabels(setting.tokens, size, SIDE, text, setting.destination)) {
    sheet.text(left - 3, top + (at + 0.5) * cell + text * 0.35, token, { size: text, mono: true, anchor: "end", bold });
  }
  sheet.text(x + 3, top + SIDE / 2, "to (destination)", { anchor: "middle", rotate: -90, fill: MUTED });
  const dest = setting.destination;
  if (dest !== null && dest < size && cell >= 2)
    sheet.path(`M${left} ${(top + dest * cell).toFixed(2)}h${SIDE}v${cell.toFixed(2)}h${-SIDE}z`, `fill="none" stroke="${INK}" stroke-width="0.7"`);
  let below = top + SIDE + 6;
  if (brings) {
    bringsBars(sheet, left, below, brings);
    const limit = limitOf(brings);
    sheet.text(left - 3, below + 7.5, "brings", { anchor: "end", size: 6, fill: MUTED });
    sheet.text(left - 3, below + 14.5, limit >= 0.0005 ? `±${limit.toFixed(limit >= 0.095 ? 2 : 3)}` : "<0.001", { anchor: "end", size: 6, fill: MUTED });
    below += BRINGS + 6;
  }
  if (ownRange) flatColourBar(sheet, left, below + 6, colours, "");
}

function matrix(sheet: Sheet, left: number, top: number, size: number, values: Float32Array, colours: Colours, name: string): void {
  if (size > MARKS) {
    const address = pixels(size, values, (value) => colourOf(value, colours));
    if (address) sheet.image(left, top, SIDE, SIDE, address);
    return;
  }
  const cell = SIDE / Math.max(1, size);
  const gap = cell > 5 ? 0.6 : cell > 2.5 ? 0.3 : 0;
  sheet.group(`cells cells-${name}`, () => {
    for (let q = 0; q < size; q += 1)
      for (let k = 0; k < size; k += 1) {
        const value = values[q * size + k] ?? NaN;
        if (Number.isNaN(value) || (k > q && value === 0)) continue; // a causal mask leaves its triangle empty
        sheet.rect(left + k * cell + gap / 2, top + q * cell + gap / 2, cell - gap, cell - gap, hex(colourOf(value, colours)), cell > 7 ? { radius: 0.8 } : {});
      }
  });
}

function bringsBars(sheet: Sheet, left: number, top: number, brings: Float32Array): void {
  const limit = limitOf(brings);
  const cell = SIDE / Math.max(1, brings.length);
  const middle = top + BRINGS / 2;
  sheet.line(left, middle, left + SIDE, middle, RULE);
  sheet.group("brings", () => {
    brings.forEach((value, k) => {
      const height = limit > 0 && Number.isFinite(value) ? (Math.abs(value) / limit) * (BRINGS / 2) : 0;
      if (height < 0.1) return;
      const gap = cell > 3 ? 0.6 : 0;
      sheet.rect(left + k * cell + gap / 2, value > 0 ? middle - height : middle, Math.max(0.3, cell - gap), height, value > 0 ? PLUS : MINUS);
    });
  });
}

// How the tab "why" is exported. The figure has a column of signed bars for each sum, or the pair map.
import { signed } from "../../base/format";
import { divergingRgb, limitOf } from "../../draw/colours";
import { inkOn } from "../../draw/ink";
import type { Field, Table } from "../../export/csv";
import type { PictureKind, Setting } from "../../export/pictures";
import { DOUBLE, hex, INK, MARGIN, MINUS, MUTED, PLUS, RULE, Sheet, SINGLE } from "../../export/svg/sheet";

/** What a target inside the model is made of: columns that are sums, or the pairs of an attention score. */
export interface WhyPicture {
  picture: "why";
  columns: {
    title: string;
    note: string;
    /** What the rows sum to, as a noun: "difference of attention scores". */
    quantity: string;
    total: number;
    /** The lines on screen. The last line may be the sum of all other components. */
    rows: { name: string; value: number }[];
    /** All components, the strongest first. */
    all: { name: string; value: number }[];
  }[];
  /** The pair map; null if the columns are shown. The last row and column are the sums over all other components. */
  pairs: { rows: string[]; columns: string[]; values: Float32Array } | null;
}

export const WHY: PictureKind<WhyPicture> = { title: () => "Why", table, figure };

function table({ columns, pairs }: WhyPicture): Table {
  if (pairs)
    return {
      columns: ["query", "key", "value"],
      rows: pairs.rows.flatMap((query, q) =>
        pairs.columns.map((key, k): Field[] => [query, key, pairs.values[q * pairs.columns.length + k] ?? NaN]),
      ),
    };
  return {
    columns: ["sum", "component", "value"],
    rows: columns.flatMap(({ title, all }) => all.map(({ name, value }): Field[] => [title, name, value])),
  };
}

const LINE = 10;
const BETWEEN = 14;
/** The space that the last slanted label needs to the right of its column. */
const SLANTED = 26;

function figure(picture: WhyPicture, setting: Setting): string {
  return picture.pairs ? pairsFigure(picture.pairs, setting) : columnsFigure(picture.columns, setting);
}

const captionOf = ({ source, target }: Setting): string[] => [...source, target];

function headingOf(columns: WhyPicture["columns"], quantity: string): string {
  const sides = columns.filter((column) => column.quantity === quantity).length;
  const sums = sides > 1 ? `the ${quantity}, by the query and by the key` : `what the ${quantity} is made of`;
  return sides < columns.length ? `${sums}; and what the head then moves` : sums;
}

function columnsFigure(columns: WhyPicture["columns"], setting: Setting): string {
  const sheet = new Sheet(columns.length > 1 ? DOUBLE : SINGLE);
  // The sides of a score and what its head then moves have different units. The note of "What it moves" names its unit.
  const { quantity = setting.quantity } = columns[0] ?? {};
  const top = sheet.heading("Why", headingOf(columns, quantity), captionOf(setting)) + 4;
  const width = (sheet.width - 2 * MARGIN - BETWEEN * (columns.length - 1)) / columns.length;
  columns.forEach(({ title, note, total, rows }, nth) => {
    const x = MARGIN + nth * (width + BETWEEN);
    const largest = Math.max(...rows.map(({ value }) => Math.abs(value)), 0);
    sheet.text(x, top, title, { bold: true, size: 7 });
    sheet.text(x + width, top, signed(total, largest), { anchor: "end", size: 7 });
    sheet.text(x, top + 8, note, { fill: MUTED, size: 6 });
    const [low, high] = [
      Math.min(0, ...rows.map(({ value }) => value)),
      Math.max(0, ...rows.map(({ value }) => value)),
    ];
    const [left, room] = [x + 48, width - 48 - 26];
    const at = (value: number): number => left + (high > low ? ((value - low) / (high - low)) * room : 0);
    sheet.group("bars", () =>
      rows.forEach(({ name, value }, i) => {
        const y = top + 20 + i * LINE;
        sheet.text(x, y, name, { mono: true, size: 6 });
        sheet.rect(at(Math.min(0, value)), y - 5.5, Math.abs(at(value) - at(0)), 6.5, value < 0 ? MINUS : PLUS);
        sheet.text(x + width, y, signed(value, largest), { anchor: "end", size: 6, fill: value < 0 ? MINUS : PLUS });
      }),
    );
    sheet.line(at(0), top + 12, at(0), top + 14 + rows.length * LINE, RULE);
  });
  const most = Math.max(...columns.map(({ rows }) => rows.length));
  return sheet.end(top + 20 + most * LINE + MARGIN, `Why: ${setting.target}`);
}

function pairsFigure({ rows, columns, values }: NonNullable<WhyPicture["pairs"]>, setting: Setting): string {
  const sheet = new Sheet(columns.length > 12 ? DOUBLE : SINGLE);
  const top = sheet.heading("Why", "components of the query ↓ and of the key →", captionOf(setting)) + 44;
  const left = MARGIN + 50;
  const side = Math.min(20, (sheet.width - left - MARGIN - SLANTED) / columns.length);
  const limit = limitOf(values);
  columns.forEach((name, k) =>
    sheet.text(left + (k + 0.6) * side, top - 3, name, { size: 6, mono: true, rotate: -55 }),
  );
  sheet.group("cells", () =>
    rows.forEach((name, q) => {
      sheet.text(left - 3, top + (q + 0.5) * side + 2, name, { anchor: "end", size: 6, mono: true });
      columns.forEach((_, k) => {
        const value = values[q * columns.length + k] ?? NaN;
        const colour = divergingRgb(value, limit, "light");
        sheet.rect(left + k * side, top + q * side, side - 0.5, side - 0.5, hex(colour));
        if (side >= 15)
          sheet.text(left + (k + 0.5) * side, top + (q + 0.5) * side + 1.8, signed(value, limit), {
            anchor: "middle",
            size: 4.6,
            fill: inkOn(colour) === "#fff" ? "#ffffff" : INK,
          });
      });
    }),
  );
  return sheet.end(top + rows.length * side + MARGIN + 4, `Why: ${setting.target}`);
}

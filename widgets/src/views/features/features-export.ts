// How the rows of an SAE are exported: a table, and a figure of signed bars.
import { plain, signed } from "../../base/format";
import type { Field, Table } from "../../export/csv";
import type { PictureKind, Setting } from "../../export/pictures";
import { MARGIN, MINUS, MUTED, PLUS, RULE, Sheet, SINGLE } from "../../export/svg/sheet";

interface Row {
  name: string;
  value: number;
  /** Null if the row is not a feature. */
  activation: number | null;
}
export interface FeaturesPicture {
  picture: "features";
  /** "StandardSAE of blocks.8.hook_resid_pre" */
  title: string;
  /** What the rows sum to, in words. */
  sum: string;
  /** The lines on screen. The last line may be the sum of all other features. */
  rows: Row[];
  /** All rows that the kernel sent, with the labels of Python. The last row may be the sum of all other features. */
  all: Row[];
}

export const FEATURES: PictureKind<FeaturesPicture> = { title: () => "Features", table, figure };

function table({ all }: FeaturesPicture): Table {
  return {
    columns: ["component", "activation", "value"],
    rows: all.map(({ name, activation, value }): Field[] => [name, activation ?? "", value]),
  };
}

const LINE = 10;

function figure({ title, sum, rows }: FeaturesPicture, setting: Setting): string {
  const sheet = new Sheet(SINGLE);
  const top = sheet.heading("Features", title, [...setting.source, setting.target, setting.place, sum]) + 4;
  const largest = Math.max(0, ...rows.map(({ value }) => Math.abs(value)));
  const mostActive = Math.max(0, ...rows.map(({ activation }) => Math.abs(activation ?? 0)));
  const width = sheet.width - 2 * MARGIN;
  const [low, high] = [Math.min(0, ...rows.map(({ value }) => value)), Math.max(0, ...rows.map(({ value }) => value))];
  const [left, room] = [MARGIN + 92, width - 92 - 28];
  const at = (value: number): number => left + (high > low ? ((value - low) / (high - low)) * room : 0);
  sheet.text(MARGIN + 86, top, "activation", { anchor: "end", size: 6, fill: MUTED });
  sheet.text(MARGIN + width, top, "adds", { anchor: "end", size: 6, fill: MUTED });
  sheet.group("bars", () =>
    rows.forEach(({ name, value, activation }, i) => {
      const y = top + 12 + i * LINE;
      sheet.text(MARGIN, y, name, { mono: true, size: 6 });
      if (activation !== null)
        sheet.text(MARGIN + 86, y, `${activation < 0 ? "−" : ""}${plain(activation, mostActive)}`, {
          anchor: "end",
          size: 6,
          fill: MUTED,
        });
      sheet.rect(at(Math.min(0, value)), y - 5.5, Math.abs(at(value) - at(0)), 6.5, value < 0 ? MINUS : PLUS);
      sheet.text(MARGIN + width, y, signed(value, largest, 1), {
        anchor: "end",
        size: 6,
        fill: value < 0 ? MINUS : PLUS,
      });
    }),
  );
  sheet.line(at(0), top + 4, at(0), top + 6 + rows.length * LINE, RULE);
  return sheet.end(top + 12 + rows.length * LINE + MARGIN, `Features: ${setting.target}`);
}

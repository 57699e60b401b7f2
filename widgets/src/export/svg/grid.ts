// The labels of maps over positions.
import type { Setting } from "../pictures";
import { type Box, tokenLabels } from "./axes";
import { MUTED, type Sheet } from "./sheet";
import { cut } from "./xml";

/** Row names on the left; if there are many, only some are shown. */
export function rowLabels(sheet: Sheet, box: Box, labels: string[]): void {
  const tall = box.height / Math.max(1, labels.length);
  const step = Math.max(1, Math.ceil(6 / tall));
  labels.forEach((label, row) => {
    if (row % step === 0)
      sheet.text(box.x - 4, box.y + (row + 0.5) * tall + 2, cut(label, 16), {
        anchor: "end",
        size: 5.5,
        mono: true,
        fill: MUTED,
      });
  });
}

/** Slanted tokens below the columns. */
export function columnLabels(sheet: Sheet, box: Box, setting: Setting, start: number, count: number): void {
  const broad = box.width / Math.max(1, count);
  const tokens = setting.tokens.slice(start, start + count);
  const marked = setting.destination === null ? null : setting.destination - start;
  for (const { at, text, bold } of tokenLabels(tokens, count, box.width, 5.5, marked)) {
    sheet.text(box.x + (at + 0.5) * broad + 2, box.y + box.height + 5, text, {
      size: 5.5,
      mono: true,
      anchor: "end",
      rotate: -55,
      bold,
    });
  }
  sheet.text(box.x + box.width / 2, box.y + box.height + 46, "position", { anchor: "middle" });
}

/** The height of the column labels. */
export const FOOT = 52;

// Maps over positions (contributions at each position, and the token lens), and the bars of the prompts. They are as
// wide as they need, up to two columns of a paper.
import { visible } from "../../base/format";
import type { PositionsPicture, PromptsPicture, Setting, TokenLensPicture } from "../pictures";
import {
  type Box,
  beyondDot,
  beyondLine,
  type Colours,
  colourBar,
  colourOf,
  number,
  scaleOf,
  tokenLabels,
  withUnit,
} from "./axes";
import { DOUBLE, hex, INK, MARGIN, MINUS, MUTED, PLUS, RULE, Sheet, SINGLE } from "./sheet";
import { cut, widthOf } from "./xml";

const BY: Record<PositionsPicture["by"], string> = {
  layer: "what each layer adds at each position to the",
  head: "what each head adds at each position to the",
  accumulated: "after each sublayer, at each position:",
};

/** Row names on the left; if there are many, only some are shown. */
function rowLabels(sheet: Sheet, box: Box, labels: string[]): void {
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
function columnLabels(sheet: Sheet, box: Box, setting: Setting, start: number, count: number): void {
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

const FOOT = 52;

export function positionsFigure({ by, labels, positions, values, limit }: PositionsPicture, setting: Setting): string {
  const left = MARGIN + 12 + Math.max(...labels.map((label) => Math.min(16, label.length)), 4) * 3.4;
  const right = 50;
  const broad = Math.min(
    14,
    Math.max(7, (DOUBLE - left - right) / Math.max(1, positions)),
    (DOUBLE - left - right) / Math.max(1, positions),
  );
  const width = Math.max(SINGLE, left + broad * positions + right);
  const sheet = new Sheet(width);
  const colours: Colours = { kind: "diverging", low: -limit, high: limit, values };
  const top = sheet.heading("Positions", `${BY[by]} ${setting.quantity}`, [
    ...setting.source,
    setting.target,
    ...beyondLine(colours, values),
  ]);
  const tall = Math.min(9, 260 / Math.max(1, labels.length));
  const box: Box = { x: left, y: top, width: width - left - right, height: tall * labels.length };
  const cell = box.width / Math.max(1, positions);
  const gap = Math.min(cell, tall) > 4 ? 0.5 : 0;
  sheet.group("cells", () => {
    for (let row = 0; row < labels.length; row += 1)
      for (let at = 0; at < positions; at += 1) {
        const value = values[row * positions + at] ?? NaN;
        if (Number.isNaN(value)) continue;
        sheet.rect(box.x + at * cell, box.y + row * tall, cell - gap, tall - gap, hex(colourOf(value, colours)));
        beyondDot(sheet, value, colours, box.x + at * cell, box.y + row * tall, cell - gap, tall - gap);
      }
  });
  rowLabels(sheet, box, labels);
  columnLabels(sheet, box, setting, 0, positions);
  const length = Math.max(46, Math.min(box.height, 130));
  colourBar(sheet, box.x + box.width + 8, box.y, length, colours, withUnit(setting.quantity));
  return sheet.end(
    Math.max(box.y + box.height + FOOT, box.y + length + MARGIN),
    `Positions: ${BY[by]} ${setting.quantity}`,
  );
}

export function tokenLensFigure({ points, start, cells }: TokenLensPicture, setting: Setting): string {
  const count = Math.max(1, ...cells.map((row) => row.length));
  const left = MARGIN + 12 + Math.max(...points.map((point) => Math.min(16, point.length)), 4) * 3.4;
  const right = 50;
  const broad = Math.min(44, Math.max(22, (DOUBLE - left - right) / count));
  const sheet = new Sheet(Math.max(SINGLE, left + broad * count + right));
  const top = sheet.heading(
    "Token lens",
    "the likeliest token at each point and position, coloured by its probability",
    setting.source,
  );
  const tall = 8.5;
  const box: Box = { x: left, y: top, width: broad * count, height: tall * points.length };
  const colours: Colours = { kind: "sequential", low: 0, high: 1 };
  sheet.group("cells", () => {
    cells.forEach((row, r) =>
      row.forEach((cell, c) => {
        const probability = cell?.probabilities[0];
        if (probability !== undefined)
          sheet.rect(box.x + c * broad, box.y + r * tall, broad - 0.5, tall - 0.5, hex(colourOf(probability, colours)));
      }),
    );
  });
  const letters = Math.floor((broad - 2) / (5 * 0.602));
  cells.forEach((row, r) =>
    row.forEach((cell, c) => {
      const token = cell?.tokens[0];
      if (token === undefined) return;
      const [red, green, blue] = colourOf(cell?.probabilities[0] ?? 0, colours);
      const fill = 0.3 * red + 0.59 * green + 0.11 * blue < 120 ? "#ffffff" : INK;
      sheet.text(box.x + (c + 0.5) * broad, box.y + r * tall + 5.9, cut(visible(token), letters - 1), {
        size: 5,
        mono: true,
        anchor: "middle",
        fill,
      });
    }),
  );
  rowLabels(sheet, box, points);
  columnLabels(sheet, box, setting, start, count);
  colourBar(sheet, box.x + box.width + 8, box.y, Math.max(46, Math.min(box.height, 110)), colours, "probability");
  return sheet.end(box.y + Math.max(box.height + FOOT, 60), "Token lens");
}

export function promptsFigure({ head, quantity, mean, std, rows }: PromptsPicture, setting: Setting): string {
  const name = head === null ? quantity : `${head}: what it adds to the ${quantity}`;
  const broad = Math.min(22, Math.max(1.2, (SINGLE - 44) / Math.max(1, rows.length)));
  const sheet = new Sheet(Math.max(SINGLE, Math.min(DOUBLE, 44 + broad * rows.length)));
  const top = sheet.heading("Prompts", name, [
    ...setting.source,
    setting.target,
    setting.place,
    "dashed line and band: the mean ± one standard deviation",
  ]);
  const box: Box = { x: 36, y: top, width: Math.min(broad * rows.length, sheet.width - 44), height: 100 };
  const scale = scaleOf([...rows.map((row) => row.value), mean - std, mean + std], box);
  const cell = box.width / Math.max(1, rows.length);
  for (const tick of scale.ticks(4)) {
    sheet.line(box.x - 2.5, scale(tick), box.x, scale(tick), MUTED);
    sheet.text(box.x - 4.5, scale(tick) + 2.2, number(tick), { anchor: "end", fill: MUTED });
  }
  sheet.line(box.x, box.y, box.x, box.y + box.height, MUTED);
  if (Number.isFinite(mean + std))
    sheet.rect(box.x, scale(mean + std), box.width, scale(mean - std) - scale(mean + std), "#e9eaea");
  sheet.group("bars", () => {
    rows.forEach(
      ({ value }, i) =>
        Number.isFinite(value) &&
        sheet.rect(
          box.x + (i + 0.15) * cell,
          Math.min(scale(0), scale(value)),
          cell * 0.7,
          Math.abs(scale(value) - scale(0)),
          value < 0 ? MINUS : PLUS,
        ),
    );
  });
  sheet.line(box.x, scale(0), box.x + box.width, scale(0), RULE);
  if (Number.isFinite(mean))
    sheet.path(
      `M${box.x} ${scale(mean).toFixed(2)}h${box.width.toFixed(2)}`,
      `stroke="${INK}" stroke-width="0.6" stroke-dasharray="2 2"`,
    );
  const step = Math.max(1, Math.ceil((rows.length * (widthOf(String(rows.length)) * 6.5 + 3)) / box.width));
  rows.forEach(({ prompt }, i) => {
    if (i % step === 0)
      sheet.text(box.x + (i + 0.5) * cell, box.y + box.height + 9, String(prompt), { anchor: "middle", fill: MUTED });
  });
  sheet.text(box.x + box.width / 2, box.y + box.height + 18, "prompt", { anchor: "middle" });
  sheet.text(10, box.y + box.height / 2, withUnit(quantity), { anchor: "middle", rotate: -90 });
  return sheet.end(box.y + box.height + 24, `Prompts: ${name}`);
}

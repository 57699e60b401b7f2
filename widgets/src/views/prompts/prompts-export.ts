// How the bars of the prompts are exported.
import type { Table } from "../../export/csv";
import type { PictureKind, Setting } from "../../export/pictures";
import { type Box, number, scaleOf, withUnit } from "../../export/svg/axes";
import { DOUBLE, INK, MINUS, MUTED, PLUS, RULE, Sheet, SINGLE } from "../../export/svg/sheet";
import { widthOf } from "../../export/svg/xml";

export interface PromptsPicture {
  picture: "prompts";
  /** The head whose contributions are shown; null for the target itself. */
  head: string | null;
  /** The quantity for one prompt: "logit difference". */
  quantity: string;
  mean: number;
  std: number;
  /** In the order on screen. */
  rows: { prompt: number; value: number }[];
}

export const PROMPTS: PictureKind<PromptsPicture> = {
  title: () => "Prompts",
  table,
  figure,
  heads: ({ head }) => (head === null ? [] : [head]),
};

function table({ head, rows }: PromptsPicture): Table {
  const columns = head === null ? ["prompt", "value"] : ["prompt", "head", "value"];
  return { columns, rows: rows.map(({ prompt, value }) => [prompt, ...(head === null ? [] : [head]), value]) };
}

function figure({ head, quantity, mean, std, rows }: PromptsPicture, setting: Setting): string {
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

// How the token lens is exported.
import { visible } from "../../base/format";
import type { Field, Table } from "../../export/csv";
import type { PictureKind, Setting } from "../../export/pictures";
import { type Box, type Colours, colourBar, colourOf } from "../../export/svg/axes";
import { columnLabels, FOOT, rowLabels } from "../../export/svg/grid";
import { DOUBLE, hex, INK, MARGIN, Sheet, SINGLE } from "../../export/svg/sheet";
import { cut } from "../../export/svg/xml";
import type { LensCell } from "../../wire/protocol.gen";

export interface TokenLensPicture {
  picture: "token-lens";
  points: string[];
  start: number;
  /** [point][position − start] */
  cells: (LensCell | null)[][];
}

export const TOKEN_LENS: PictureKind<TokenLensPicture> = { title: () => "Token lens", table, figure };

function table({ points, start, cells }: TokenLensPicture, { tokens }: Setting): Table {
  function* rows(): Iterable<Field[]> {
    for (const [row, point] of points.entries())
      for (const [i, cell] of (cells[row] ?? []).entries())
        for (const [nth, predicted] of (cell?.tokens ?? []).entries())
          yield [
            point,
            start + i,
            tokens[start + i]?.text ?? "",
            nth + 1,
            predicted,
            cell?.probabilities[nth] ?? NaN,
            cell?.answer ?? NaN,
            cell?.rank ?? NaN,
          ];
  }
  return {
    columns: ["point", "position", "token", "place", "predicted", "probability", "answer_probability", "answer_rank"],
    rows: rows(),
  };
}

function figure({ points, start, cells }: TokenLensPicture, setting: Setting): string {
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

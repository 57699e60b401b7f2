// How the token lens is exported.
import { signed, visible } from "../../base/format";
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
  /** The notes on the cells, for the caption. */
  notes?: string[];
  /** What is read in place of the stream, if the lens is not the plain one. */
  lens?: string;
  /** The cells of the compared run, and whether the picture shows this run or the difference. */
  compared?: { run: "second" | "difference"; cells: (LensCell | null)[][] };
}

export const TOKEN_LENS: PictureKind<TokenLensPicture> = { title: () => "Token lens", table, figure };

function table({ points, start, cells, compared }: TokenLensPicture, { tokens }: Setting): Table {
  function* of(run: string[], which: TokenLensPicture["cells"]): Iterable<Field[]> {
    for (const [row, point] of points.entries())
      for (const [i, cell] of (which[row] ?? []).entries())
        for (const [nth, predicted] of (cell?.tokens ?? []).entries())
          yield [
            ...run,
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
  const columns = "point position token place predicted probability answer_probability answer_rank".split(" ");
  if (!compared) return { columns, rows: of([], cells) };
  return { columns: ["run", ...columns], rows: [...of(["A"], cells), ...of(["B"], compared.cells)] };
}

/** The value and the text of each cell, the colour scale, and the words that explain it. */
function lensCells({ cells, compared }: TokenLensPicture): {
  shown: ({ value: number; text: string } | null)[][];
  colours: Colours;
  words: string;
  unit: string;
} {
  if (compared?.run !== "difference")
    return {
      shown: (compared?.cells ?? cells).map((row) =>
        row.map((cell) =>
          cell?.tokens[0] === undefined ? null : { value: cell.probabilities[0] ?? 0, text: visible(cell.tokens[0]) },
        ),
      ),
      colours: { kind: "sequential", low: 0, high: 1 },
      words: `${compared ? "run B: " : ""}the likeliest token at each point and position, coloured by its probability`,
      unit: "probability",
    };
  const shown = cells.map((row, r) =>
    row.map((cell, c) => {
      const value = (compared.cells[r]?.[c]?.answer ?? NaN) - (cell?.answer ?? NaN);
      return Number.isNaN(value) ? null : { value, text: signed(value, 1) };
    }),
  );
  const high = Math.max(1e-6, ...shown.flat().map((cell) => Math.abs(cell?.value ?? 0)));
  const colours: Colours = { kind: "diverging", low: -high, high };
  return { shown, colours, words: "the answer’s probability at each point and position, B − A", unit: "probability" };
}

function figure(picture: TokenLensPicture, setting: Setting): string {
  const { points, start, cells, notes = [] } = picture;
  const { shown, colours, words, unit } = lensCells(picture);
  const count = Math.max(1, ...cells.map((row) => row.length));
  const left = MARGIN + 12 + Math.max(...points.map((point) => Math.min(16, point.length)), 4) * 3.4;
  const right = 50;
  const broad = Math.min(44, Math.max(22, (DOUBLE - left - right) / count));
  const sheet = new Sheet(Math.max(SINGLE, left + broad * count + right));
  const caption = [...setting.source, ...(picture.lens ? [`transported: ${picture.lens}`] : []), ...notes];
  const top = sheet.heading("Token lens", words, caption);
  const tall = 8.5;
  const box: Box = { x: left, y: top, width: broad * count, height: tall * points.length };
  sheet.group("cells", () => {
    shown.forEach((row, r) =>
      row.forEach((cell, c) => {
        if (cell !== null)
          sheet.rect(box.x + c * broad, box.y + r * tall, broad - 0.5, tall - 0.5, hex(colourOf(cell.value, colours)));
      }),
    );
  });
  const letters = Math.floor((broad - 2) / (5 * 0.602));
  shown.forEach((row, r) =>
    row.forEach((cell, c) => {
      if (cell === null) return;
      const [red, green, blue] = colourOf(cell.value, colours);
      const fill = 0.3 * red + 0.59 * green + 0.11 * blue < 120 ? "#ffffff" : INK;
      sheet.text(box.x + (c + 0.5) * broad, box.y + r * tall + 5.9, cut(cell.text, letters - 1), {
        size: 5,
        mono: true,
        anchor: "middle",
        fill,
      });
    }),
  );
  rowLabels(sheet, box, points);
  columnLabels(sheet, box, setting, start, count);
  colourBar(sheet, box.x + box.width + 8, box.y, Math.max(46, Math.min(box.height, 110)), colours, unit);
  return sheet.end(box.y + Math.max(box.height + FOOT, 60), "Token lens");
}

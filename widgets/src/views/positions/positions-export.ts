// How the position map is exported.
import type { Field, Table } from "../../export/csv";
import type { PictureKind, Setting } from "../../export/pictures";
import { type Box, beyondDot, beyondLine, type Colours, colourBar, colourOf, withUnit } from "../../export/svg/axes";
import { columnLabels, FOOT, rowLabels } from "../../export/svg/grid";
import { DOUBLE, hex, MARGIN, Sheet, SINGLE } from "../../export/svg/sheet";
import type { MapPositions } from "../../wire/protocol.gen";

export interface PositionsPicture {
  picture: "positions";
  by: MapPositions["by"];
  labels: string[];
  positions: number;
  /** [component, position] */
  values: Float32Array;
  /** The model's own value at each position; NaN if it is not known. */
  own: Float32Array;
  /** The colour scale goes from −limit to +limit. Values may lie beyond it. */
  limit: number;
  /** The notes on the map, for the caption. */
  notes?: string[];
}

export const POSITIONS: PictureKind<PositionsPicture> = {
  title: () => "Positions",
  table,
  figure,
  heads: ({ by, labels }) => (by === "head" ? labels : null),
};

const BY: Record<PositionsPicture["by"], string> = {
  layer: "what each layer adds at each position to the",
  head: "what each head adds at each position to the",
  accumulated: "after each sublayer, at each position:",
};

/** The table of a position map. The model's own values come last, as the component "measured". */
function table({ labels, positions, values, own }: PositionsPicture, { tokens }: Setting): Table {
  function* rows(): Iterable<Field[]> {
    for (const [row, label] of labels.entries())
      for (let at = 0; at < positions; at += 1)
        yield [label, at, tokens[at]?.text ?? "", values[row * positions + at] ?? NaN];
    if (own.some(Number.isFinite))
      for (let at = 0; at < positions; at += 1) yield ["measured", at, tokens[at]?.text ?? "", own[at] ?? NaN];
  }
  return { columns: ["component", "position", "token", "value"], rows: rows() };
}

function figure({ by, labels, positions, values, limit, notes = [] }: PositionsPicture, setting: Setting): string {
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
    ...notes,
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

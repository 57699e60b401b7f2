// How the effects of the stream at each layer and position are exported. Positions after the destination have no effect
// on the target: they are not in the table, and stay empty in the figure.
import type { Field, Table } from "../../export/csv";
import type { PictureKind, Setting } from "../../export/pictures";
import { type Box, type Colours, colourBar, colourOf, withUnit } from "../../export/svg/axes";
import { columnLabels, FOOT } from "../../export/svg/grid";
import { hatch } from "../../export/svg/hatch";
import { effectLines } from "../../export/svg/heads";
import { DOUBLE, hex, MARGIN, MUTED, Sheet, SINGLE } from "../../export/svg/sheet";
import { layerTicks } from "../../state/axis";
import { type Found, isEstimated, valuesOf } from "../../state/effects";

export interface StreamPicture {
  picture: "stream";
  layers: number;
  positions: number;
  /** The position where the target is read; null if it differs between prompts. */
  destination: number | null;
  found: Found;
  /** The colour scale goes from −limit to +limit. */
  limit: number;
}

export const STREAM: PictureKind<StreamPicture> = { title: () => "Runs: stream", table, figure };

/** What the values are: "how the logit difference changes if the stream of B replaces that of A". */
export function streamWords({ isPutIn, reply }: Found, quantity: string): string {
  return isPutIn
    ? `how the ${quantity} changes if the stream of B replaces that of A`
    : `what the stream adds to the ${quantity}, compared with ${reply.replaced_by} in its place`;
}

function table({ layers, positions, destination, found }: StreamPicture, { tokens }: Setting): Table {
  const values = valuesOf(found, "total");
  function* rows(): Iterable<Field[]> {
    for (let layer = 0; layer < layers; layer += 1)
      for (let at = 0; at <= (destination ?? positions - 1); at += 1) {
        const i = layer * positions + at;
        const estimated = isEstimated(found, "total", i) ? "yes" : "no";
        yield [layer, at, tokens[at]?.text ?? "", values[i] ?? NaN, estimated, found.estimate[i] ?? NaN];
      }
  }
  return { columns: ["layer", "position", "token", "value", "estimated", "estimate"], rows: rows() };
}

const LEFT = 32;
const RIGHT = 52;

function figure({ layers, positions, destination, found, limit }: StreamPicture, setting: Setting): string {
  const values = valuesOf(found, "total");
  const colours: Colours = { kind: "diverging", low: -limit, high: limit };
  const broad = Math.min(14, (DOUBLE - LEFT - RIGHT) / Math.max(1, positions));
  const width = Math.max(SINGLE, LEFT + broad * positions + RIGHT);
  const sheet = new Sheet(width);
  const what = streamWords(found, setting.quantity);
  const top = sheet.heading("Stream before each layer", what, [
    ...setting.source,
    setting.target,
    setting.place,
    ...effectLines({ effect: "total", found }, setting),
  ]);
  const tall = Math.min(9, 260 / Math.max(1, layers));
  const box: Box = { x: LEFT, y: top, width: broad * positions, height: tall * layers };
  const gap = Math.min(broad, tall) > 4 ? 0.5 : 0;
  sheet.group("cells", () => {
    for (let layer = 0; layer < layers; layer += 1)
      for (let at = 0; at <= (destination ?? positions - 1); at += 1) {
        const i = layer * positions + at;
        const value = values[i] ?? NaN;
        if (Number.isNaN(value)) continue;
        const cell = [box.x + at * broad, box.y + layer * tall, broad - gap, tall - gap] as const;
        sheet.rect(...cell, hex(colourOf(value, colours)));
        if (isEstimated(found, "total", i)) hatch(sheet, ...cell);
      }
  });
  for (const layer of layerTicks(layers, 12))
    sheet.text(box.x - 4, box.y + (layer + 0.5) * tall + 2.2, String(layer), { anchor: "end", fill: MUTED });
  sheet.text(10, box.y + box.height / 2, "layer", { anchor: "middle", rotate: -90 });
  columnLabels(sheet, box, setting, 0, positions);
  const length = Math.max(46, Math.min(box.height, 130));
  colourBar(sheet, box.x + box.width + 8, box.y, length, colours, withUnit(setting.quantity));
  return sheet.end(Math.max(box.y + box.height + FOOT, box.y + length + MARGIN), `Stream: ${what}`);
}

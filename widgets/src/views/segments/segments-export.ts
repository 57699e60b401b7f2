// How the map segment × segment is exported.
import type { Field, Table } from "../../export/csv";
import type { PictureKind, Setting } from "../../export/pictures";
import { type Box, type Colours, colourBar, colourOf } from "../../export/svg/axes";
import { rowLabels } from "../../export/svg/grid";
import { DOUBLE, hex, INK, MARGIN, MUTED, Sheet, SINGLE } from "../../export/svg/sheet";
import type { Weighting } from "../../state/store";
import { NAMES, UNITS, written } from "../attention/attention-scale";
import { segmentName } from "../strip/segment-chips";
import type { SegmentMap } from "./segment-data";
import { limits, valueAt } from "./segment-grid";

export interface SegmentsPicture {
  picture: "segments";
  map: SegmentMap;
}

export const SEGMENT_MAP: PictureKind<SegmentsPicture> = {
  title: () => "Segments",
  table,
  figure,
  heads: ({ map }) => [map.head],
};

/** The row "all later" is the mean over all positions after the source. */
function table({ map }: SegmentsPicture): Table {
  const places = [...map.segments.keys()];
  const cells = (destination: number | null, name: string): Field[][] =>
    places.map((source): Field[] => [
      map.head,
      destination ?? "",
      name,
      source,
      map.segments[source]?.name ?? "",
      destination === null
        ? (map.later[source] ?? NaN)
        : (map.values[destination * map.segments.length + source] ?? NaN),
    ]);
  return {
    columns: ["head", "destination", "destination_name", "source", "source_name", "value"],
    rows: [...places.flatMap((at) => cells(at, map.segments[at]?.name ?? "")), ...cells(null, "all later")],
  };
}

const HOW: Record<Weighting, string> = {
  pattern: "sum over sources, mean over destinations",
  value: "sum over sources, mean over destinations",
  contribution: "sum over both segments",
};

function figure({ map }: SegmentsPicture, setting: Setting): string {
  const { head, weighting, segments, values } = map;
  const count = segments.length;
  const labels = segments.map((segment, nth) => `${nth} ${segmentName(segment)}`);
  const left = MARGIN + 62;
  const right = 50;
  const side = Math.min(22, (DOUBLE - left - right) / count);
  const width = Math.max(SINGLE, left + side * count + right);
  const sheet = new Sheet(width);
  const limit = limits(map);
  const colours = (high: number): Colours =>
    weighting === "contribution"
      ? { kind: "diverging", low: -high, high, values }
      : { kind: "sequential", low: 0, high, values };
  const top =
    sheet.heading("Segments", `${head}: which segments read ↓ which →`, [
      ...setting.source,
      ...(weighting === "contribution" ? [setting.target] : []),
      `${NAMES[weighting].toLowerCase()}: ${HOW[weighting]}`,
      "all later: the mean over all positions after the segment",
    ]) + 8;
  const tall = Math.min(16, side, 300 / count);
  const box: Box = { x: left, y: top, width: side * count, height: tall * count };
  for (let at = 0; at < count; at += 1)
    if (side >= 6 || at % 2 === 0)
      sheet.text(box.x + (at + 0.5) * side, box.y - 3, String(at), { anchor: "middle", size: 5.5, fill: MUTED });
  const row = (destination: number | null, y: number): void => {
    for (let source = 0; source < count; source += 1) {
      const value = valueAt(map, { destination, source });
      if (!Number.isFinite(value)) continue;
      const most = destination === null ? limit.later : limit.map;
      const colour = colourOf(value, colours(most));
      const [w, h] = [side - (side > 4 ? 0.5 : 0), tall - (tall > 4 ? 0.5 : 0)];
      sheet.rect(box.x + source * side, y, w, h, hex(colour));
      if (side >= 18 && tall >= 8)
        sheet.text(box.x + (source + 0.5) * side, y + tall / 2 + 1.8, written(weighting, value, most), {
          anchor: "middle",
          size: 5,
          fill: colour[0] + colour[1] + colour[2] < 380 ? "#ffffff" : INK,
        });
    }
  };
  sheet.group("cells", () => {
    for (let at = 0; at < count; at += 1) row(at, box.y + at * tall);
    row(null, box.y + count * tall + 4);
  });
  rowLabels(sheet, box, labels);
  sheet.text(box.x - 4, box.y + (count + 0.5) * tall + 6, "all later", { anchor: "end", size: 5.5, fill: MUTED });
  const length = Math.max(46, Math.min(box.height, 130));
  colourBar(sheet, box.x + box.width + 8, box.y, length, colours(limit.map), UNITS[weighting]);
  const end = Math.max(box.y + box.height + tall + 4, box.y + length);
  return sheet.end(end + MARGIN + 4, `Segments: ${head}`);
}

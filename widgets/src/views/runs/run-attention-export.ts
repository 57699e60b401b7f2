// How the attention of heads in two runs is exported: for each head, the matrices of A, of B, and of B − A.
import { limitOf } from "../../draw/colours";
import { blocks } from "../../draw/plane";
import { RUNS } from "../../export/charts";
import type { Field, Table } from "../../export/csv";
import type { PictureKind, Setting } from "../../export/pictures";
import { type Colours, flatColourBar, runLines } from "../../export/svg/axes";
import { MARGIN, Sheet } from "../../export/svg/sheet";
import { matrixPanel, PANEL, panelHeight } from "../attention/attention-figure";
import { MAPS, placeIn, positionOf, type RunMaps } from "./run-maps";

export interface RunAttentionPicture {
  picture: "attention-of-runs";
  maps: RunMaps[];
}

export const ATTENTION_OF_RUNS: PictureKind<RunAttentionPicture> = {
  title: () => "Runs: attention",
  table,
  figure,
  heads: ({ maps }) => maps.map(({ head }) => head),
};

/** The table. Positions are those of A. The paired positions of B are added if some have other indices. */
function table({ maps }: RunAttentionPicture, { tokens }: Setting): Table {
  const isPaired = maps.some(({ pairs }) => pairs !== null);
  const isLong = maps.some(({ planes }) => planes[0].step > 1);
  const text = (at: number): string => tokens[at]?.text ?? "";
  function* rows(): Iterable<Field[]> {
    for (const one of maps) {
      const { planes, size, pairs } = one;
      const { step, columns } = planes[0];
      const wide = blocks(columns, step);
      const values = (at: number): number[] => planes.map((plane) => plane.values[at] ?? NaN);
      const last = (place: number): number => positionOf(one, Math.min(size, place + step) - 1);
      const second = (place: number): number => pairs?.[place]?.second ?? place;
      for (let at = 0; at < wide * wide; at += 1) {
        const [q, k] = [Math.floor(at / wide) * step, (at % wide) * step];
        const [of, from] = [positionOf(one, q), positionOf(one, k)];
        yield isLong
          ? [one.head, of, last(q), from, last(k), ...values(at)]
          : [one.head, of, text(of), from, text(from), ...(isPaired ? [second(q), second(k)] : []), ...values(at)];
      }
    }
  }
  const places = isLong
    ? ["destination_first", "destination_last", "source_first", "source_last"]
    : ["destination", "destination_token", "source", "source_token"];
  const paired = isPaired && !isLong ? ["destination_in_second", "source_in_second"] : [];
  return { columns: ["head", ...places, ...paired, ...RUNS, "difference"], rows: rows() };
}

function figure({ maps }: RunAttentionPicture, setting: Setting): string {
  const sheet = new Sheet(MAPS.length * PANEL + 2 * MARGIN);
  const step = Math.max(1, ...maps.map(({ planes }) => planes[0].step));
  const top =
    sheet.heading("Attention in two runs", "the pattern in A, in B, and B − A", [
      ...setting.source,
      ...runLines(setting),
      ...(step > 1 ? [`down-sampled: each cell is the strongest of ${step} × ${step}`] : []),
    ]) + 5;
  const limit = Math.max(0, ...maps.map(({ planes }) => limitOf(planes[2].values)));
  const one: Colours = { kind: "sequential", low: 0, high: 1 };
  const change: Colours = { kind: "diverging", low: -limit, high: limit };
  const tall = panelHeight(false, false);
  maps.forEach((map, row) => {
    const { head, planes, size } = map;
    // Row and column i stand for position i of A, or for the i-th pair.
    const positions = Array.from({ length: size }, (_, place) => positionOf(map, place));
    const tokens = positions.map((at) => setting.tokens[at] ?? { text: "", shown: String(at), mark: "" });
    const own: Setting = { ...setting, tokens, destination: placeIn(map, setting.destination) };
    planes.forEach((plane, i) => {
      const shown = { ...plane, name: `${head} ${MAPS[i]}`, value: null, maps: {}, sourceContributions: null };
      const colours = i === 2 ? change : one;
      const [x, y] = [MARGIN + i * PANEL, top + row * tall];
      matrixPanel(sheet, x, y, shown, plane.values, colours, false, 0, own);
    });
  });
  const end = top + maps.length * tall + 2;
  flatColourBar(sheet, MARGIN, end, one, "attention");
  flatColourBar(sheet, MARGIN + 2 * PANEL, end, change, "B − A");
  return sheet.end(end + MARGIN + 2, `Attention in two runs of ${maps.map(({ head }) => head).join(", ")}`);
}

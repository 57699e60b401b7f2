// How the attention on screen is exported.
import { blocks } from "../../draw/plane";
import type { Field, Table } from "../../export/csv";
import type { PictureKind, Setting } from "../../export/pictures";
import { attentionFigure } from "./attention-figure";
import type { AttentionPicture } from "./attention-picture";

export const ATTENTION: PictureKind<AttentionPicture> = {
  title: ({ maps }) => (maps.length <= 3 ? `Attention ${maps.map(({ name }) => name).join(", ")}` : "Attention"),
  table: attention,
  figure: attentionFigure,
  heads: ({ maps }) => maps.flatMap(({ name, of }) => of ?? [name]),
};

const MAPS = [
  ["pattern", "attention"],
  ["value", "value_weighted"],
  ["contribution", "contribution"],
] as const;

function attention({ maps, pool }: AttentionPicture, { tokens }: Setting): Table {
  if (maps.some((map) => map.step > 1)) return inBlocks(maps, pool);
  const there = MAPS.filter(([what]) => maps.some((map) => map.maps[what]));
  const text = (at: number): string => tokens[at]?.text ?? "";
  function* rows(): Iterable<Field[]> {
    for (const {
      name,
      rows: { start, stop },
      columns,
      maps: values,
    } of maps)
      for (let q = start, at = 0; q < stop; q += 1)
        for (let k = columns.start; k < columns.stop; k += 1, at += 1)
          yield [name, q, text(q), k, text(k), ...there.map(([what]) => values[what]?.[at] ?? NaN)];
  }
  return {
    columns: [
      "head",
      "destination",
      "destination_token",
      "source",
      "source_token",
      ...there.map(([, column]) => column),
    ],
    rows: rows(),
  };
}

/** The table of a long prompt. A row has the first and last positions of a block, and the value of the block. */
function inBlocks(maps: AttentionPicture["maps"], pool: AttentionPicture["pool"]): Table {
  const there = MAPS.filter(([what]) => maps.some((map) => map.maps[what]));
  function* rows(): Iterable<Field[]> {
    for (const { name, rows: down, columns: across, step, maps: values } of maps) {
      const wide = blocks(across, step);
      for (let at = 0; at < wide * blocks(down, step); at += 1) {
        const [q, k] = [down.start + Math.floor(at / wide) * step, across.start + (at % wide) * step];
        yield [
          name,
          q,
          Math.min(down.stop, q + step) - 1,
          k,
          Math.min(across.stop, k + step) - 1,
          ...there.map(([what]) => values[what]?.[at] ?? NaN),
        ];
      }
    }
  }
  const named = there.map(([, column]) => `${pool === "peak" ? "strongest" : "mean"}_${column}`);
  return {
    columns: ["head", "destination_first", "destination_last", "source_first", "source_last", ...named],
    rows: rows(),
  };
}

// Each picture as a table: one row for each mark; labels are those of TransformerLens.
import { blocks } from "../draw/plane";
import { isEstimated } from "../state/effects";
import { RUN_AXES } from "../state/scatter";
import type { Field, Table } from "./csv";
import type {
  AttentionPicture,
  HeadsPicture,
  Picture,
  PositionsPicture,
  PromptsPicture,
  Setting,
  TokenLensPicture,
  Valued,
  WhyPicture,
} from "./pictures";

export function tableOf(picture: Picture, setting: Setting): Table {
  switch (picture.picture) {
    case "lens":
      return valued("point", picture.points);
    case "layers":
      return valued("component", picture.rows);
    case "ranking":
      return valued(picture.of === "heads" ? "head" : "neuron", picture.rows);
    case "heads":
      return heads(picture);
    case "attention":
      return attention(picture, setting);
    case "positions":
      return positions(picture, setting);
    case "token-lens":
      return tokenLens(picture, setting);
    case "prompts":
      return prompts(picture);
    case "why":
      return why(picture);
    case "runs":
      return {
        columns: ["head", ...(picture.axes[0] === RUN_AXES[0] ? [...RUNS, "difference"] : picture.axes)],
        rows: picture.heads.map(({ name, first, second, value }) => [name, first, second, value]),
      };
  }
}

/** The columns of two compared runs; the difference is second − first. */
const RUNS = ["first", "second"];

function valued(what: string, rows: Valued[]): Table {
  const spread = rows.some((row) => row.std !== null);
  const compared = rows.some(({ runs }) => runs !== undefined);
  const measured = rows.some(({ isEstimate }) => isEstimate !== undefined);
  return {
    columns: [what, "value", ...(measured ? ["estimated"] : []), ...(spread ? ["std"] : []), ...(compared ? RUNS : [])],
    rows: rows.map(({ name, value, std, runs, isEstimate }) => [
      name,
      value,
      ...(measured ? [isEstimate ? "yes" : "no"] : []),
      ...(spread ? [std ?? NaN] : []),
      ...(compared ? [runs?.first ?? NaN, runs?.second ?? NaN] : []),
    ]),
  };
}

function heads({ layers, heads, values, std, score, runs, measured }: HeadsPicture): Table {
  const effects = (i: number): Field[] => {
    if (!measured) return [];
    const { total, direct, estimate } = measured.found;
    const [all = NaN, own = NaN, about = NaN] = [total[i], direct[i], estimate[i]];
    return [isEstimated(measured.found, measured.effect, i) ? "yes" : "no", all, own, all - own, about];
  };
  const rows = Array.from({ length: layers * heads }, (_, i): Field[] => [
    Math.floor(i / heads),
    i % heads,
    values[i] ?? NaN,
    ...(std ? [std[i] ?? NaN] : []),
    ...(score ? [score.values[i] ?? NaN] : []),
    ...(runs ? [runs.first[i] ?? NaN, runs.second[i] ?? NaN] : []),
    ...effects(i),
  ]);
  const named = measured ? ["estimated", "total", "direct", "indirect", "estimate"] : [];
  const more = [...(std ? ["std"] : []), ...(score ? [score.name] : []), ...(runs ? RUNS : []), ...named];
  return { columns: ["layer", "head", "value", ...more], rows };
}

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

/** For a long prompt: the first and last positions of each block, and the value that stands for its cells. */
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

/** The model's own values come last, as the component "measured". */
function positions({ labels, positions, values, own }: PositionsPicture, { tokens }: Setting): Table {
  function* rows(): Iterable<Field[]> {
    for (const [row, label] of labels.entries())
      for (let at = 0; at < positions; at += 1)
        yield [label, at, tokens[at]?.text ?? "", values[row * positions + at] ?? NaN];
    if (own.some(Number.isFinite))
      for (let at = 0; at < positions; at += 1) yield ["measured", at, tokens[at]?.text ?? "", own[at] ?? NaN];
  }
  return { columns: ["component", "position", "token", "value"], rows: rows() };
}

function tokenLens({ points, start, cells }: TokenLensPicture, { tokens }: Setting): Table {
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

function prompts({ head, rows }: PromptsPicture): Table {
  const columns = head === null ? ["prompt", "value"] : ["prompt", "head", "value"];
  return { columns, rows: rows.map(({ prompt, value }) => [prompt, ...(head === null ? [] : [head]), value]) };
}

function why({ columns, pairs }: WhyPicture): Table {
  if (pairs)
    return {
      columns: ["query", "key", "value"],
      rows: pairs.rows.flatMap((query, q) =>
        pairs.columns.map((key, k): Field[] => [query, key, pairs.values[q * pairs.columns.length + k] ?? NaN]),
      ),
    };
  return {
    columns: ["sum", "component", "value"],
    rows: columns.flatMap(({ title, all }) => all.map(({ name, value }): Field[] => [title, name, value])),
  };
}

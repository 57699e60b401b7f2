// How the charts are exported: lens, layers, heads and ranking.
import { isEstimated } from "../state/effects";
import type { Field, Table } from "./csv";
import type { HeadsPicture, LayersPicture, LensPicture, PictureKind, RankingPicture, Valued } from "./pictures";
import { layersFigure, lensFigure } from "./svg/curves";
import { headsFigure, rankingFigure } from "./svg/heads";

export const LENS: PictureKind<LensPicture> = {
  title: () => "Logit lens",
  table: ({ points }) => valued("point", points),
  figure: lensFigure,
};
export const LAYERS: PictureKind<LayersPicture> = {
  title: () => "Layers",
  table: ({ rows }) => valued("component", rows),
  figure: layersFigure,
};
export const HEADS: PictureKind<HeadsPicture> = { title: () => "Heads", table: heads, figure: headsFigure };
export const RANKING: PictureKind<RankingPicture> = {
  title: ({ of }) => `Top ${of}`,
  table: ({ of, rows }) => valued(of === "heads" ? "head" : "neuron", rows),
  figure: rankingFigure,
};

/** The columns of two compared runs. */
export const RUNS = ["first", "second"];

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

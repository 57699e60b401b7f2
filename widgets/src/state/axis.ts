// The layer axis that the head map, the layer bars and the lens share. It runs from top to bottom. Layer i takes the
// range [i, i + 1]: attention the first half, the MLP the second half. So each step of the lens is next to the bar of
// its sublayer. The embeddings take [−1, 0], a narrow band above the layers.
import { type Component, SUBLAYERS } from "../wire/components";

export interface Bar {
  index: number;
  label: string;
  kind: "attention" | "mlp" | "other";
  /** The name of the sublayer ("attn", "mlp", "mixer"), or of the embedding. */
  part: string;
  layer: number | null;
  from: number;
  to: number;
}

/** A position on the axis in percent of the width, for exported figures, where layers run from left to right. */
export function percent(x: number, layers: number): number {
  return ((x + 1) / (layers + 1)) * 100;
}

/** The height in pixels of the band above the layers, for rows of this height. */
export function bandAbove(row: number): number {
  return Math.min(row, 10);
}

/** The distance in pixels from the top to a position on the axis, for rows of this height. */
export function along(at: number, row: number): number {
  const above = bandAbove(row);
  return at < 0 ? (at + 1) * above : above + at * row;
}

/** The inverse of `along`: the position on the axis at this many pixels from the top. */
export function placeAt(pixels: number, row: number): number {
  const above = bandAbove(row);
  return pixels < above ? pixels / (above || 1) - 1 : (pixels - above) / (row || 1);
}

/** The position of a point of the lens on the axis. */
export function lensX({ kind, layer }: Component, layers: number): number {
  return layer === null ? layers : layer + (kind === "mid" ? 0.5 : 0);
}

/** Describes a point of the lens: "after layer 3". */
export function lensMeaning({ kind, layer, label }: Component): string {
  if (kind === "final_post") return "after the last layer";
  if (layer === null || (kind !== "pre" && kind !== "mid")) return `at ${label}`;
  if (kind === "mid") return `after layer ${layer}’s attention`;
  return layer === 0 ? "before the first layer" : `after layer ${layer - 1}`;
}

export function bars(rows: readonly Component[]): Bar[] {
  /** The layer of a sublayer; null for other rows, which go above all layers. */
  const layerOf = ({ kind, layer }: Component): number | null => (SUBLAYERS[kind] ? layer : null);
  const inLayer = new Map<number | null, number>();
  for (const row of rows) inLayer.set(layerOf(row), (inLayer.get(layerOf(row)) ?? 0) + 1);
  const before = inLayer.get(null) ?? 0;
  const seen = new Map<number | null, number>();
  return rows.map((row, index) => {
    const { label } = row;
    const layer = layerOf(row);
    const at = seen.get(layer) ?? 0;
    seen.set(layer, at + 1);
    if (layer === null) {
      const width = 1 / Math.max(2, before);
      return {
        index,
        label,
        kind: "other",
        part: label,
        layer: null,
        from: -1 + at * width,
        to: -1 + (at + 1) * width,
      };
    }
    const kind = row.kind === "attn_out" ? "attention" : row.kind === "mlp_out" ? "mlp" : "other";
    const [from, to] = place(kind, at, inLayer.get(layer) ?? 1);
    return {
      index,
      label,
      kind,
      part: (SUBLAYERS[row.kind] ?? "").replaceAll("_", " "),
      layer,
      from: layer + from,
      to: layer + to,
    };
  });
}

/** The range of a sublayer in its layer. Of several sublayers, the last takes the second half, the others the first. */
function place(kind: Bar["kind"], at: number, count: number): [number, number] {
  if (count === 1) return kind === "attention" ? [0, 0.5] : kind === "mlp" ? [0.5, 1] : [0, 1];
  const width = 0.5 / (count - 1);
  return at === count - 1 ? [0.5, 1] : [at * width, (at + 1) * width];
}

/** Layer numbers to label on an axis: every 1st, 2nd, 5th, 10th, …, at most about `most`. */
export function layerTicks(layers: number, most = 8): number[] {
  const step = [1, 2, 5, 10, 20, 50].find((s) => layers / s <= most) ?? 100;
  return Array.from({ length: Math.ceil(layers / step) }, (_, i) => i * step);
}

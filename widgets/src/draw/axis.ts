// The layer axis that the head map, the layer bars and the lens share; it runs from top to bottom. Layer i takes [i, i
// + 1], like its row of the map: attention the first half, the MLP the second. So each step of the lens is next to the
// bar of its sublayer. The embeddings take [−1, 0], a narrow band above the layers.
export interface Bar {
  index: number;
  label: string;
  kind: "attention" | "mlp" | "other";
  /** "attn", "mlp", "mixer"; an embedding's own name. */
  part: string;
  layer: number | null;
  from: number;
  to: number;
}

/** In exported figures layers run from left to right: a position on the axis, in percent of the width. */
export function percent(x: number, layers: number): number {
  return ((x + 1) / (layers + 1)) * 100;
}

/** Height in pixels of the band above the layers, for rows of this height. */
export function bandAbove(row: number): number {
  return Math.min(row, 10);
}

/** Pixels from the top for a position on the axis, for rows of this height. */
export function along(at: number, row: number): number {
  const above = bandAbove(row);
  return at < 0 ? (at + 1) * above : above + at * row;
}

/** The inverse of `along`: the position on the axis at this many pixels from the top. */
export function placeAt(pixels: number, row: number): number {
  const above = bandAbove(row);
  return pixels < above ? pixels / (above || 1) - 1 : (pixels - above) / (row || 1);
}

export function lensX(label: string, index: number, count: number, layers: number): number {
  const match = /^(\d+)_(pre|mid|post)$/.exec(label);
  if (match) return Number(match[1]) + (match[2] === "pre" ? 0 : match[2] === "mid" ? 0.5 : 1);
  if (label === "final_post") return layers;
  return count > 1 ? (index / (count - 1)) * layers : 0;
}

/** Describes a point of the lens: "after layer 3". */
export function lensMeaning(label: string): string {
  const match = /^(\d+)_(pre|mid|post)$/.exec(label);
  if (label === "final_post") return "after the last layer";
  if (!match) return `at ${label}`;
  const layer = Number(match[1]);
  if (match[2] === "mid") return `after layer ${layer}’s attention`;
  if (match[2] === "post") return `after layer ${layer}`;
  return layer === 0 ? "before the first layer" : `after layer ${layer - 1}`;
}

export function bars(labels: string[]): Bar[] {
  const parsed = labels.map((label) => /^(\d+)_(.+)_out$/.exec(label));
  const before = parsed.filter((m) => m === null).length;
  const inLayer = new Map<string, number>();
  for (const m of parsed) if (m?.[1]) inLayer.set(m[1], (inLayer.get(m[1]) ?? 0) + 1);
  const seen = new Map<string | undefined, number>();
  return labels.map((label, index) => {
    const match = parsed[index];
    const at = seen.get(match?.[1]) ?? 0;
    seen.set(match?.[1], at + 1);
    if (!match) {
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
    const kind = match[2] === "attn" ? "attention" : match[2] === "mlp" ? "mlp" : "other";
    const layer = Number(match[1]);
    const [from, to] = place(kind, at, inLayer.get(match[1] ?? "") ?? 1);
    return {
      index,
      label,
      kind,
      part: (match[2] ?? "").replaceAll("_", " "),
      layer,
      from: layer + from,
      to: layer + to,
    };
  });
}

/** The range of a sublayer in its layer: the last one takes the second half, the others share the first. */
function place(kind: Bar["kind"], at: number, count: number): [number, number] {
  if (count === 1) return kind === "attention" ? [0, 0.5] : kind === "mlp" ? [0.5, 1] : [0, 1];
  const width = 0.5 / (count - 1);
  return at === count - 1 ? [0.5, 1] : [at * width, (at + 1) * width];
}

/** Layer numbers to write on an axis: every 1st, 2nd, 5th, 10th, …, about `most` at most. */
export function layerTicks(layers: number, most = 8): number[] {
  const step = [1, 2, 5, 10, 20, 50].find((s) => layers / s <= most) ?? 100;
  return Array.from({ length: Math.ceil(layers / step) }, (_, i) => i * step);
}

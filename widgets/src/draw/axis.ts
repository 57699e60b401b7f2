// Where layers stand on the shared x axis of the lens and the layer chart. Layer i fills [i, i + 1]: its attention the
// first half, its MLP the second, so that the lens' step over a half is the bar that stands under it. What comes before
// the layers (embeddings) stands in [−1, 0].
export interface Bar {
  index: number;
  label: string;
  kind: "attention" | "mlp" | "other";
  layer: number | null;
  from: number;
  to: number;
}

/** x in percent of the plot's width. */
export function percent(x: number, layers: number): number {
  return ((x + 1) / (layers + 1)) * 100;
}

export function lensX(label: string, index: number, count: number, layers: number): number {
  const match = /^(\d+)_(pre|mid|post)$/.exec(label);
  if (match) return Number(match[1]) + (match[2] === "pre" ? 0 : match[2] === "mid" ? 0.5 : 1);
  if (label === "final_post") return layers;
  return count > 1 ? (index / (count - 1)) * layers : 0;
}

/** What a point of the lens comes after. */
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
  const parsed = labels.map((label) => /^(\d+)_(attn|mlp)_out$/.exec(label));
  const others = parsed.filter((m) => m === null).length;
  let other = 0;
  return labels.map((label, index) => {
    const match = parsed[index];
    if (!match) {
      const from = -1 + other / Math.max(2, others);
      other += 1;
      return { index, label, kind: "other", layer: null, from, to: from + 1 / Math.max(2, others) };
    }
    const layer = Number(match[1]);
    const attention = match[2] === "attn";
    const from = layer + (attention ? 0 : 0.5);
    return { index, label, kind: attention ? "attention" : "mlp", layer, from, to: from + 0.5 };
  });
}

/** Round layer numbers for an axis: every 1, 2, 5, 10, … so that at most `most` are written. */
export function layerTicks(layers: number, most = 8): number[] {
  const step = [1, 2, 5, 10, 20, 50].find((s) => layers / s <= most) ?? 100;
  return Array.from({ length: Math.ceil(layers / step) }, (_, i) => i * step);
}

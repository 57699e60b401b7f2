// The height of a layer's row in the head map and the charts next to it. Rows are lower if the window is low, but not
// below MIN_ROW. Only the rows of a model with many layers or heads can be lower than that.
import { type ReadonlySignal, signal as state } from "@preact/signals-core";
import { watch } from "../base/lifetime";
import { bandAbove } from "../state/axis";
import type { Store } from "../state/store";
import type { Free } from "./free-height";

/** In pixels: a row is at most MAX_MAP / layers, MAX_SQUARE_MAP / heads, and MAX_ROW high. */
const MAX_MAP = 340;
const MAX_SQUARE_MAP = 290;
const MAX_ROW = 28;
/** A lower row would be hard to point at. */
const MIN_ROW = 6;
/** The height below the rows: the head numbers, the colour scale, and a margin. */
const BELOW = 50;

/** `axes` returns the box of the map and the charts. The nodes in `before` are above it: it moves when they grow. */
export function rowHeight(
  store: Store,
  free: Free,
  axes: () => HTMLElement | null,
  before: HTMLElement[],
  signal: AbortSignal,
): ReadonlySignal<number> {
  const top = state(0);
  const row = state(MAX_ROW);
  const measure = (): void => {
    const node = axes();
    if (node?.isConnected && node.clientHeight > 0) top.value = Math.round(free.above(node));
  };
  const observer = new ResizeObserver(measure);
  for (const node of before) observer.observe(node);
  signal.addEventListener("abort", () => observer.disconnect(), { once: true });
  watch(signal, () => {
    const { layers = 0, heads = 0 } = store.facts.value ?? {};
    if (layers === 0 || heads === 0) return;
    const preferred = Math.min(MAX_MAP / layers, MAX_SQUARE_MAP / heads, MAX_ROW);
    const available = free.height.value - top.value - BELOW - bandAbove(preferred);
    row.value = Math.max(Math.min(MIN_ROW, preferred), Math.min(preferred, Math.floor((available / layers) * 4) / 4));
  });
  return row;
}

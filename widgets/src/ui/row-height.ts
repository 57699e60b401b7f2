// The height of a layer's row in the head map and the charts next to it: as the window allows, but easy to point at.
import { type ReadonlySignal, signal as state } from "@preact/signals-core";
import { watch } from "../base/lifetime";
import { bandAbove } from "../state/axis";
import type { Store } from "../state/store";
import type { Free } from "./free-height";

/** The height of the tallest map; a map that is nearly square is a little lower. */
const TALLEST = 340;
const SQUARE = 290;
const HIGHEST = 28;
/** A row that is lower would be hard to point at. */
const LOWEST = 6;
/** The height below the rows: the head numbers, the colour scale, and a margin. */
const BELOW = 50;

/** `axes` contains the map and the charts; the nodes in `before` may grow and push it down. */
export function rowHeight(
  store: Store,
  free: Free,
  axes: () => HTMLElement | null,
  before: HTMLElement[],
  signal: AbortSignal,
): ReadonlySignal<number> {
  const top = state(0);
  const row = state(HIGHEST);
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
    const wanted = Math.min(TALLEST / layers, SQUARE / heads, HIGHEST);
    const left = free.height.value - top.value - BELOW - bandAbove(wanted);
    row.value = Math.max(Math.min(LOWEST, wanted), Math.min(wanted, Math.floor((left / layers) * 4) / 4));
  });
  return row;
}

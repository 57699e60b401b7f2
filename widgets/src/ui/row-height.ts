// The height of a layer's row, in the head map and beside it: what the window leaves, within what can be pointed at.
import { type ReadonlySignal, signal as state } from "@preact/signals-core";
import { watch } from "../base/lifetime";
import { bandAbove } from "../state/axis";
import type { Store } from "../state/store";
import type { Free } from "./free-height";

/** Height of the tallest map; a square-ish one is a little lower. */
const TALLEST = 340;
const SQUARE = 290;
const HIGHEST = 28;
/** A lower row could not be pointed at. */
const LOWEST = 6;
/** What stands below the rows: the heads' numbers and the colour scale; and a margin to the window's end. */
const BELOW = 50;

/** `axes` holds map and charts; `before` are what may grow and push it down. */
export function rowHeight(
  store: Store,
  free: Free,
  axes: () => HTMLElement | null,
  before: HTMLElement[],
  signal: AbortSignal,
): ReadonlySignal<number> {
  const top = state(0);
  const row = state(HIGHEST);
  const look = (): void => {
    const node = axes();
    if (node?.isConnected && node.clientHeight > 0) top.value = Math.round(free.above(node));
  };
  const observer = new ResizeObserver(look);
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

// How wide a box is, in CSS pixels; its pictures follow, it never follows them.
import { type ReadonlySignal, signal as state } from "@preact/signals-core";

/** Before the first look (and where nothing is laid out, in a test) it is `otherwise`. */
export function measured(node: HTMLElement, otherwise: number, signal: AbortSignal): ReadonlySignal<number> {
  const width = state(otherwise);
  const observer = new ResizeObserver(() => {
    if (node.clientWidth > 0) width.value = node.clientWidth;
  });
  observer.observe(node);
  signal.addEventListener("abort", () => observer.disconnect(), { once: true });
  return width;
}

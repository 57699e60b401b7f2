// The width of a box in CSS pixels. Pictures adapt to the width of their box; the box never adapts to its pictures.
import { type ReadonlySignal, signal as state } from "@preact/signals-core";

/** The measured width; `otherwise` before the first measurement, and in tests without a layout. */
export function measured(node: HTMLElement, otherwise: number, signal: AbortSignal): ReadonlySignal<number> {
  const width = state(otherwise);
  const observer = new ResizeObserver(() => {
    if (node.clientWidth > 0) width.value = node.clientWidth;
  });
  observer.observe(node);
  signal.addEventListener("abort", () => observer.disconnect(), { once: true });
  return width;
}

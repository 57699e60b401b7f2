// The height that is available to a view: the height of the window, or of the box that scrolls the view. The rows of
// the head map and the cards are sized for it, so that the strip, the sentence and the map are visible together.
import { type ReadonlySignal, signal as state } from "@preact/signals-core";
import { parentOf } from "../base/ancestors";

export interface Free {
  /** In pixels. */
  height: ReadonlySignal<number>;
  /** The distance in pixels from the top of the panel, or of the sidebar, to the top of an element. */
  above: (node: HTMLElement) => number;
}

const SCROLLS = /auto|scroll|hidden|clip|overlay/;

export function freeHeight(root: HTMLElement, signal: AbortSignal): Free {
  const height = state(window.innerHeight);
  /** Boxes that have clipped the panel stay in this set. Otherwise a shortened output would grow and shrink in turn. */
  const clippingBoxes = new Set<HTMLElement>();

  const measure = (): void => {
    let least = window.innerHeight;
    for (let node = root.parentElement; node; node = parentOf(node)) {
      const style = getComputedStyle(node);
      if (!SCROLLS.test(style.overflowY) || node.clientHeight === 0) continue;
      // A box that is as high as its contents clips nothing. The height of a positioned box does not follow its
      // contents.
      const clips =
        style.position === "absolute" || style.position === "fixed" || node.scrollHeight > node.clientHeight + 1;
      if (clips && !clippingBoxes.has(node)) {
        clippingBoxes.add(node);
        observer.observe(node);
      }
      if (clippingBoxes.has(node)) least = Math.min(least, node.clientHeight);
    }
    height.value = least;
  };
  const observer = new ResizeObserver(measure);
  observer.observe(root);
  window.addEventListener("resize", measure, { signal });
  signal.addEventListener("abort", () => observer.disconnect(), { once: true });

  // In a sidebar, other lines of the sidebar come before the panel.
  const above = (node: HTMLElement): number =>
    node.getBoundingClientRect().top - (root.closest<HTMLElement>(".rs-sidebar") ?? root).getBoundingClientRect().top;
  return { height, above };
}

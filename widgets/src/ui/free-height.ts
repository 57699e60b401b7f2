// The height that is available to a view: the part of the page that can be seen at once. The rows of the head map and
// the cards fit into it, so that the strip, the sentence and the map are visible together.
import { type ReadonlySignal, signal as state } from "@preact/signals-core";
import { parentOf } from "../base/ancestors";

export interface Free {
  /** The height in pixels of the window, or of the box, that shows the panel. */
  height: ReadonlySignal<number>;
  /** How many pixels an element begins below the top of the panel, or of the sidebar. */
  above: (node: HTMLElement) => number;
}

const SCROLLS = /auto|scroll|hidden|clip|overlay/;

export function freeHeight(root: HTMLElement, signal: AbortSignal): Free {
  const height = state(window.innerHeight);
  /** Boxes that once clipped the panel stay in this set; otherwise a shortened output would grow and shrink in turn. */
  const clips = new Set<HTMLElement>();

  const measure = (): void => {
    let least = window.innerHeight;
    for (let node = root.parentElement; node; node = parentOf(node)) {
      const style = getComputedStyle(node);
      if (!SCROLLS.test(style.overflowY) || node.clientHeight === 0) continue;
      // A box that is as high as its contents clips nothing. A positioned box has a height of its own.
      const isOwn =
        style.position === "absolute" || style.position === "fixed" || node.scrollHeight > node.clientHeight + 1;
      if (isOwn && !clips.has(node)) {
        clips.add(node);
        observer.observe(node);
      }
      if (clips.has(node)) least = Math.min(least, node.clientHeight);
    }
    height.value = least;
  };
  const observer = new ResizeObserver(measure);
  observer.observe(root);
  window.addEventListener("resize", measure, { signal });
  signal.addEventListener("abort", () => observer.disconnect(), { once: true });

  // In a sidebar the view starts at the sidebar's first line; elsewhere at the panel.
  const above = (node: HTMLElement): number =>
    node.getBoundingClientRect().top - (root.closest<HTMLElement>(".rs-sidebar") ?? root).getBoundingClientRect().top;
  return { height, above };
}

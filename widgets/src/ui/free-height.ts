// How high a view may be: what of the page can be seen at once where the panel stands. Rows of the head map, and cards,
// are no higher than that leaves them; the strip, the sentence and the map are in view together.
import { type ReadonlySignal, signal as state } from "@preact/signals-core";
import { parentOf } from "../base/ancestors";

export interface Free {
  /** Pixels of the window that the panel is seen through. */
  height: ReadonlySignal<number>;
  /** How far below the start of what is looked at an element begins. */
  above: (node: HTMLElement) => number;
}

const SCROLLS = /auto|scroll|hidden|clip|overlay/;

export function freeHeight(root: HTMLElement, signal: AbortSignal): Free {
  const height = state(window.innerHeight);
  /** What cut the panel off once may do so again: an output that was shortened would else grow and shrink in turn. */
  const clips = new Set<HTMLElement>();

  const look = (): void => {
    let least = window.innerHeight;
    for (let node = root.parentElement; node; node = parentOf(node)) {
      const style = getComputedStyle(node);
      if (!SCROLLS.test(style.overflowY) || node.clientHeight === 0) continue;
      // A box that is as high as what stands in it cuts nothing off. One that was placed has a height of its own.
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
  const observer = new ResizeObserver(look);
  observer.observe(root);
  window.addEventListener("resize", look, { signal });
  signal.addEventListener("abort", () => observer.disconnect(), { once: true });

  // In a sidebar all of it is looked at, from its first line; elsewhere the panel.
  const above = (node: HTMLElement): number =>
    node.getBoundingClientRect().top - (root.closest<HTMLElement>(".rs-sidebar") ?? root).getBoundingClientRect().top;
  return { height, above };
}

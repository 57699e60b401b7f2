// The height that is available to a view: the height of the window, or of the box that scrolls the view. The sizes of
// the head map's rows and of the cards depend on it, so that the token strip, the line with the sentence and the map
// are visible together.
import { type ReadonlySignal, signal as state } from "@preact/signals-core";
import { parentOf } from "../base/ancestors";

export interface Free {
  /** The available height in pixels. */
  height: ReadonlySignal<number>;
  /** The distance in pixels from the top of the panel, or of the sidebar, to the top of an element. */
  above: (node: HTMLElement) => number;
}

const SCROLLS = /auto|scroll|hidden|clip|overlay/;

export function freeHeight(root: HTMLElement, signal: AbortSignal): Free {
  const height = state(window.innerHeight);
  /**
   * The boxes that have clipped the panel. They stay in this set, because otherwise the panel would grow when it fits,
   * be clipped again, shrink, and so on.
   */
  const clippingBoxes = new Set<HTMLElement>();

  const measure = (): void => {
    let least = window.innerHeight;
    for (let node = root.parentElement; node; node = parentOf(node)) {
      const style = getComputedStyle(node);
      if (!SCROLLS.test(style.overflowY) || node.clientHeight === 0) continue;
      // A box clips if its contents are higher than the box. A box with an absolute or fixed position always counts:
      // its height usually does not depend on its contents.
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

  // In a sidebar, the distance includes the lines of the sidebar above the panel.
  const above = (node: HTMLElement): number =>
    node.getBoundingClientRect().top - (root.closest<HTMLElement>(".rs-sidebar") ?? root).getBoundingClientRect().top;
  return { height, above };
}

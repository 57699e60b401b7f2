// A row of items on one line, such as tabs. If there is no room for all, the row scrolls. Where it continues beyond an
// edge, a button at this edge scrolls on.
import { element } from "../base/lifetime";
import { scrollToShow } from "./scroll";

/** The width of an edge button in CSS pixels. tabs.css has the same number. */
const EDGE = 22;

/**
 * Adds the buttons. Returns a function that scrolls to the selected item. The caller must call it after each change of
 * the items or of the selection.
 */
export function mountEdges(place: HTMLElement, row: HTMLElement, signal: AbortSignal): () => void {
  // All items can be reached by keys, so users of keys and screen readers do not need these buttons.
  const edge = (by: -1 | 1): HTMLElement => {
    const [side, text] = by < 0 ? ["rs-before", "‹"] : ["rs-after", "›"];
    const button = element("button", `rs-row-edge ${side}`, { type: "button", tabindex: "-1", "aria-hidden": "true" });
    button.textContent = text;
    button.hidden = true;
    button.addEventListener("click", () => (row.scrollLeft += by * Math.max(EDGE, row.clientWidth - 3 * EDGE)), {
      signal,
    });
    place.append(button);
    return button;
  };
  const [before, after] = [edge(-1), edge(1)];
  const update = (): void => {
    // One pixel may be due to rounding.
    before.hidden = row.scrollLeft <= 1;
    after.hidden = row.scrollLeft + row.clientWidth >= row.scrollWidth - 1;
  };
  const showSelected = (): void => {
    const item = row.querySelector<HTMLElement>('[aria-selected="true"]');
    if (item && row.clientWidth > 0) {
      const [from, to] = [item.offsetLeft - EDGE, item.offsetLeft + item.offsetWidth + EDGE];
      row.scrollLeft = scrollToShow(from, to, row.scrollLeft, row.clientWidth);
    }
    update();
  };
  row.addEventListener("scroll", update, { signal, passive: true });
  const observer = new ResizeObserver(showSelected);
  observer.observe(row);
  signal.addEventListener("abort", () => observer.disconnect(), { once: true });
  return showSelected;
}

// Keeps the sentence line in view while the panel scrolls. CSS (`position: sticky`) does this where the browser scrolls
// the panel itself. VS Code scrolls an output from outside its page, and other hosts put it into boxes of their own:
// there a notice is moved to the first visible line, as long as there is one.
import { child } from "../base/lifetime";

const STEPS = Array.from({ length: 101 }, (_, i) => i / 100);

export function keepInSight(bar: HTMLElement, root: HTMLElement, signal: AbortSignal): void {
  let end: AbortController | null = null;
  let moved = 0;

  const move = (by: number): void => {
    moved = by;
    bar.style.translate = by > 0 ? `0 ${by}px` : "";
    bar.classList.toggle("rs-afloat", by > 0);
  };
  const update = (entries: IntersectionObserverEntry[]): void => {
    const entry = entries.at(-1);
    if (!entry || entry.intersectionRatio === 0) return;
    const own = bar.getBoundingClientRect();
    const [top, bottom] = [
      Math.max(entry.intersectionRect.top, entry.rootBounds?.top ?? -Infinity),
      entry.boundingClientRect.bottom - own.height,
    ];
    const by = Math.round(Math.min(top, bottom) - (own.top - moved));
    if (Math.abs(by - moved) > 1) move(Math.max(0, by));
  };
  const follow = (): void => {
    const isSaid = bar.querySelector(".rs-notice p") !== null;
    if (isSaid === (end !== null)) return;
    end?.abort();
    end = null;
    if (!isSaid) return move(0);
    end = child(signal);
    const observer = new IntersectionObserver(update, { threshold: STEPS });
    observer.observe(root);
    window.addEventListener("scroll", () => (observer.unobserve(root), observer.observe(root)), {
      signal: end.signal,
      capture: true,
      passive: true,
    });
    end.signal.addEventListener("abort", () => observer.disconnect(), { once: true });
  };
  const said = new MutationObserver(follow);
  said.observe(bar, { childList: true, subtree: true });
  signal.addEventListener("abort", () => said.disconnect(), { once: true });
}

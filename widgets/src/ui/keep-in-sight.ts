// Keeps a notice in view while the panel scrolls. CSS (`position: sticky`) does this only if nothing comes between the
// panel and the box that scrolls. VS Code scrolls an output from outside the output's page, and other hosts put
// additional boxes around the panel. There, this module moves the notice to the first visible line.
import { child } from "../base/lifetime";

const THRESHOLDS = Array.from({ length: 101 }, (_, i) => i / 100);

export function keepInSight(bar: HTMLElement, root: HTMLElement, signal: AbortSignal): void {
  let end: AbortController | null = null;
  let moved = 0; // pixels

  const move = (pixels: number): void => {
    moved = pixels;
    bar.style.translate = pixels > 0 ? `0 ${pixels}px` : "";
    bar.classList.toggle("rs-afloat", pixels > 0);
  };
  const update = (entries: IntersectionObserverEntry[]): void => {
    const entry = entries.at(-1);
    if (!entry || entry.intersectionRatio === 0) return;
    const barBox = bar.getBoundingClientRect();
    const [top, bottom] = [
      Math.max(entry.intersectionRect.top, entry.rootBounds?.top ?? -Infinity),
      entry.boundingClientRect.bottom - barBox.height,
    ];
    const pixels = Math.round(Math.min(top, bottom) - (barBox.top - moved));
    if (Math.abs(pixels - moved) > 1) move(Math.max(0, pixels));
  };
  const onContents = (): void => {
    const hasNotice = bar.querySelector(".rs-notice p") !== null;
    if (hasNotice === (end !== null)) return;
    end?.abort();
    end = null;
    if (!hasNotice) return move(0);
    end = child(signal);
    const observer = new IntersectionObserver(update, { threshold: THRESHOLDS });
    observer.observe(root);
    window.addEventListener("scroll", () => (observer.unobserve(root), observer.observe(root)), {
      signal: end.signal,
      capture: true,
      passive: true,
    });
    end.signal.addEventListener("abort", () => observer.disconnect(), { once: true });
  };
  const contents = new MutationObserver(onContents);
  contents.observe(bar, { childList: true, subtree: true });
  signal.addEventListener("abort", () => contents.disconnect(), { once: true });
}

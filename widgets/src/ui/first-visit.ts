// The hint for a first visit. It is seen once: this is stored in the browser, or, where a page may store nothing, until
// the page is left. Several views on one page share it, also if they are from different bundles.
import { signal as state } from "@preact/signals-core";

const KEY = "residscope:first-visit";
const SEEN = "residscope-first-visit-seen";

interface Page {
  [SEEN]?: boolean;
}

function isSeen(): boolean {
  if ((globalThis as Page)[SEEN]) return true;
  try {
    return localStorage.getItem(KEY) !== null;
  } catch {
    return false; // the page may not use storage
  }
}

/** Whether the hint is to be shown. It changes to false for all views of the page. */
export function firstVisit(signal: AbortSignal): { readonly value: boolean } {
  const isFirst = state(!isSeen());
  if (isFirst.peek()) window.addEventListener(SEEN, () => (isFirst.value = false), { signal, once: true });
  return isFirst;
}

/** The hint was read, or the user has done what it says. */
export function endFirstVisit(): void {
  (globalThis as Page)[SEEN] = true;
  try {
    localStorage.setItem(KEY, "seen");
  } catch {
    // until the page is left
  }
  window.dispatchEvent(new Event(SEEN));
}

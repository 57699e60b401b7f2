// The hint for a first visit. The browser stores that the hint was seen. If the page may store nothing, this is known
// only until the page is left. The hint disappears from all views on a page at once, even if they are from different
// bundles.
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

/** Whether the hint is to be shown. `endFirstVisit` changes it to false in all views of the page. */
export function firstVisit(signal: AbortSignal): { readonly value: boolean } {
  const isFirst = state(!isSeen());
  if (isFirst.peek()) window.addEventListener(SEEN, () => (isFirst.value = false), { signal, once: true });
  return isFirst;
}

/** Called when the user has read the hint, or has done what it says. */
export function endFirstVisit(): void {
  (globalThis as Page)[SEEN] = true;
  try {
    localStorage.setItem(KEY, "seen");
  } catch {
    // the page may not use storage
  }
  window.dispatchEvent(new Event(SEEN));
}

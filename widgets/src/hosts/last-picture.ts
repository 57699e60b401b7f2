// The last picture of a view. The host keeps it while the page reloads. After the reload it is shown until the cache is
// drawn.
import { untracked } from "@preact/signals-core";
import { child, element, later, watch } from "../base/lifetime";
import type { Snapshot } from "../snapshot/snapshot";
import { checkSnapshot } from "../snapshot/snapshot-check";
import { mountSnapshot, wordsOf } from "../snapshot/snapshot-view";
import type { Inspection } from "./cache-view";

/** A host's storage of pictures, by notebook and cache name. Stored data is not trusted. */
export interface Pictures {
  get(path: string, name: string): Promise<unknown>;
  put(path: string, name: string, picture: Snapshot): void;
}

/** A picture is made when the screen has not changed for this time, so that the user is not disturbed. */
const PICTURE_AFTER_MS = 1500;

/** Gives a new picture to the host whenever the screen has changed. */
export function keepPicture(path: string, inspection: Inspection, pictures: Pictures, signal: AbortSignal): void {
  let pause: AbortController | null = null;
  let lastContent = "";
  watch(signal, () => {
    void inspection.screen.value;
    pause?.abort();
    pause = child(signal);
    later(PICTURE_AFTER_MS, pause.signal, () =>
      untracked(() => {
        const picture = inspection.picture();
        const content = picture ? JSON.stringify({ ...picture, saved: "" }) : lastContent;
        if (!picture || content === lastContent) return;
        lastContent = content;
        pictures.put(path, inspection.name, picture);
      }),
    );
  });
}

/**
 * Draws the last picture before the element `live`, until a cache is drawn in `live`. A picture that fails the check is
 * not drawn.
 */
export async function showLastPicture(
  path: string,
  live: HTMLElement,
  inspection: Inspection,
  pictures: Pictures,
  signal: AbortSignal,
): Promise<void> {
  const stored = await pictures.get(path, inspection.name).catch(() => null); // without a picture, the view just opens
  const { snapshot } = checkSnapshot(stored);
  if (!snapshot || signal.aborted || inspection.row.peek()) return;
  const end = child(signal);
  const place = element("div", "rs-last-picture");
  live.before(place);
  live.classList.add("rs-arriving"); // so that nothing moves when `live` replaces the picture
  mountSnapshot(place, snapshot, wordsOf(snapshot), end.signal);
  const observer = new MutationObserver(
    () => live.querySelector(":scope > .residscope:is([data-state=ready], [data-state=error])") && end.abort(),
  );
  observer.observe(live, { subtree: true, childList: true, attributes: true, attributeFilter: ["data-state"] });
  end.signal.addEventListener(
    "abort",
    () => {
      observer.disconnect();
      place.remove();
      live.classList.remove("rs-arriving");
    },
    { once: true },
  );
}

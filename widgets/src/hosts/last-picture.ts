// The last picture of a view: the host keeps it while the page reloads, and it is shown until the cache itself is
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

/** A picture is made when nothing has changed for this long, so that it does not disturb the user. */
const STILL_MS = 1500;

/** Gives the host a new picture whenever it has changed. */
export function keepPicture(path: string, inspection: Inspection, pictures: Pictures, signal: AbortSignal): void {
  let pause: AbortController | null = null;
  let kept = "";
  watch(signal, () => {
    void inspection.settled.value;
    pause?.abort();
    pause = child(signal);
    later(STILL_MS, pause.signal, () =>
      untracked(() => {
        const picture = inspection.picture();
        const content = picture ? JSON.stringify({ ...picture, saved: "" }) : kept;
        if (!picture || content === kept) return;
        kept = content;
        pictures.put(path, inspection.name, picture);
      }),
    );
  });
}

/**
 * Draws the last picture before `live`, until a cache is drawn there. A picture that fails the check is not drawn.
 */
export async function showLastPicture(
  path: string,
  live: HTMLElement,
  inspection: Inspection,
  pictures: Pictures,
  signal: AbortSignal,
): Promise<void> {
  const { snapshot } = checkSnapshot(await pictures.get(path, inspection.name));
  if (!snapshot || signal.aborted || inspection.row.peek()) return;
  const end = child(signal);
  const place = element("div", "rs-last-picture");
  live.before(place);
  live.classList.add("rs-arriving"); // so that nothing moves when it replaces the picture
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

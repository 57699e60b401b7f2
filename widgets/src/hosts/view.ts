// A view in the main area: the state of its link, and one cache.

import { element } from "../base/lifetime";
import { followTheme } from "../ui/theme";
import { Inspection } from "./cache-view";
import type { Caches } from "./caches";
import { keepPicture, type Pictures, showLastPicture } from "./last-picture";
import { mountLinkState } from "./link-state";
import { mountNoCache } from "./no-cache";
import type { Opened } from "./opened";

export function mountView(
  parent: HTMLElement,
  caches: Caches,
  opened: Opened,
  signal: AbortSignal,
  pictures?: Pictures,
): Inspection {
  const linkState = element("div", "rs-link");
  const noCache = element("div", "rs-link rs-absent");
  const top = element("div", "residscope rs-sidebar rs-view-link", {}, linkState, noCache);
  const place = element("div", "rs-view");
  parent.append(top, place);
  signal.addEventListener("abort", () => [top, place].forEach((node) => node.remove()), { once: true });
  followTheme(top, signal);
  mountLinkState(linkState, caches.link, signal);
  const inspection = new Inspection(place, caches, opened.name, signal, opened.selection, Boolean(pictures));
  mountNoCache(noCache, caches, inspection, signal);
  inspection.showWhenListed();
  if (pictures) {
    keepPicture(opened.path, inspection, pictures, signal);
    void showLastPicture(opened.path, place, inspection, pictures, signal);
  }
  return inspection;
}

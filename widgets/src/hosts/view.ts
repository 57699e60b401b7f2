// A view in the main area: the state of its link, and the cache it shows.

import { element } from "../base/lifetime";
import { followTheme } from "../ui/theme";
import { mountAbsent } from "./absent";
import { Inspection } from "./cache-view";
import type { Caches } from "./caches";
import { keepPicture, type Pictures, showLastPicture } from "./last-picture";
import { mountLinkState } from "./link-state";
import type { Opened } from "./opened";

export function mountView(
  parent: HTMLElement,
  caches: Caches,
  opened: Opened,
  signal: AbortSignal,
  pictures?: Pictures,
): Inspection {
  const state = element("div", "rs-link");
  const absent = element("div", "rs-link rs-absent");
  const link = element("div", "residscope rs-sidebar rs-view-link", {}, state, absent);
  const place = element("div", "rs-view");
  parent.append(link, place);
  signal.addEventListener("abort", () => [link, place].forEach((node) => node.remove()), { once: true });
  followTheme(link, signal);
  mountLinkState(state, caches.link, signal);
  const inspection = new Inspection(place, caches, opened.name, signal, opened.selection, Boolean(pictures));
  mountAbsent(absent, caches, inspection, signal);
  inspection.showWhenListed();
  if (pictures) {
    keepPicture(opened.path, inspection, pictures, signal);
    void showLastPicture(opened.path, place, inspection, pictures, signal);
  }
  return inspection;
}

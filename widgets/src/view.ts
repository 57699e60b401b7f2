// One view in a place of its own: how things stand with its kernel, and the cache that is looked at.
import type { Caches } from "./caches";
import { Inspection } from "./inspection";
import { element } from "./lifetime";
import type { Opened } from "./sidebar";
import { themed } from "./theme";
import { mountLinkState } from "./views/link-state";

export function mountView(parent: HTMLElement, caches: Caches, opened: Opened, signal: AbortSignal): Inspection {
  const state = element("div", "rs-link");
  const link = element("div", "residscope rs-sidebar rs-view-link", {}, state);
  const place = element("div", "rs-view");
  parent.append(link, place);
  themed(link, signal);
  mountLinkState(state, caches.link, signal);
  const inspection = new Inspection(place, caches, opened.name, signal, opened.selection);
  inspection.takeWhenListed();
  return inspection;
}

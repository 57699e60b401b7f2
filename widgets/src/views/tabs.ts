// The tabs below the charts. One view is visible at a time, and only this one sends requests to the kernel.

import { computed } from "@preact/signals-core";
import { html, render } from "lit-html";
import type { Chapter } from "../base/chapters";
import { keysOf } from "../base/keys-of";
import { child, element, later, watch } from "../base/lifetime";
import { offer } from "../export/pictures";
import type { Scene } from "../state/scene";
import type { Store, Tab } from "../state/store";
import { mountEdges } from "../ui/scrolled-row";
import type { Ask } from "../wire/client";
import { attention } from "./attention/attention";
import type { AttentionRoom } from "./attention/attention-room";
import { features } from "./features/features";
import { positions } from "./positions/positions";
import { prompts } from "./prompts/prompts";
import { runs } from "./runs/runs";
import { segments } from "./segments/segments";
import type { TabView } from "./tab-view";
import { tokenLens } from "./token-lens/token-lens";
import { why } from "./why/why";

/** The views, in the order of their tabs. */
const VIEWS: Record<Tab, TabView> = {
  attention,
  positions,
  "token-lens": tokenLens,
  prompts,
  why,
  runs,
  segments,
  features,
};
const TABS = keysOf(VIEWS);
/** Messages that one cell sends arrive within this time, in milliseconds. */
const NEXT_MESSAGE = 100;
let panels = 0;

export function mountLower(parent: HTMLElement, room: AttentionRoom, signal: AbortSignal): void {
  const { store } = room;
  const id = `rs-lower-${++panels}`;
  const tabs = element("div", "rs-tabs", { role: "tablist", "aria-label": "Views" });
  const place = element("div", "rs-tabs-place", {}, tabs);
  const row = element("div", "rs-lower-title", {}, place);
  parent.append(row);
  const showSelected = mountEdges(place, tabs, signal);

  for (const tab of TABS) {
    const controls = element("div", "rs-lower-controls");
    const view = element("div", `rs-tabpanel rs-${tab}`, {
      role: "tabpanel",
      id: `${id}-${tab}`,
      "aria-labelledby": `${id}-${tab}-tab`,
    });
    row.append(controls);
    parent.append(view);
    watch(signal, () => {
      controls.hidden = view.hidden = store.tab.value !== tab;
    });
    offer(store, tab, VIEWS[tab].mount(view, controls, room, signal));
  }

  const isThere = (tab: Tab): boolean => VIEWS[tab].isThere?.(store) ?? true;
  // The tab may have been chosen from Python, or for the previous cache, and this cache may not have it. A cell may end
  // the comparison and also choose another tab. That choice arrives in a second message, so this waits for it.
  let leaving = child(signal);
  watch(signal, () => {
    leaving.abort();
    if (store.facts.value === null || isThere(store.tab.value)) return;
    leaving = child(signal);
    later(NEXT_MESSAGE, leaving.signal, () => (store.tab.value = "attention"));
  });
  const there = computed(() => TABS.filter(isThere));
  watch(signal, () => {
    const chosen = store.tab.value;
    render(
      there.value.map(
        (tab) => html`<button type="button" role="tab" id=${`${id}-${tab}-tab`} title=${VIEWS[tab].tip}
            aria-controls=${`${id}-${tab}`}
        aria-selected=${chosen === tab} tabindex=${chosen === tab ? 0 : -1} data-tab=${tab}
            @click=${() => (store.tab.value = tab)}>${VIEWS[tab].name}</button>`,
      ),
      tabs,
    );
    showSelected();
  });
  tabs.addEventListener(
    "keydown",
    (event) => {
      const names = there.peek();
      const at = names.indexOf(store.tab.peek());
      const last = names.length - 1;
      const to = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at === 0 ? last : at - 1, Home: 0, End: last }[
        event.key
      ];
      const tab = to === undefined ? undefined : names[to];
      if (!tab) return;
      event.preventDefault();
      store.tab.value = tab;
      tabs.querySelector<HTMLElement>(`[data-tab="${tab}"]`)?.focus();
    },
    { signal },
  );
}

/** The chapter of the documentation about the open tab. */
export function chapterOfTheTab(store: Store): Chapter {
  return VIEWS[store.tab.peek()].chapter(store);
}

/** The requests of the open tab, in addition to those of the charts and of the pinned heads. */
export function ofTheTab(scene: Scene): Ask[] {
  return VIEWS[scene.shown.tab].requests(scene);
}

/** The requests that the open tab may send when the user changes an option within it. */
export function withinTheTab(scene: Scene): Ask[] {
  return VIEWS[scene.shown.tab].options(scene);
}

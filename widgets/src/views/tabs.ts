// The tabs below the charts. One view is visible at a time, and only this one sends requests to the kernel.
import { computed } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import { element, watch } from "../base/lifetime";
import type { Store, Tab } from "../state/store";
import type { Client } from "../wire/client";
import { mountAttention } from "./attention/attention";
import type { AttentionRoom } from "./attention/attention-room";
import { mountPositions } from "./positions/positions";
import { mountPrompts } from "./prompts/prompts";
import { mountRuns } from "./runs/runs";
import { mountTokenLens } from "./token-lens/token-lens";
import { mountWhy } from "./why/why";

/** A view below the charts. `controls` is an element next to the tabs. */
export type LowerView = (
  parent: HTMLElement,
  controls: HTMLElement,
  store: Store,
  client: Client,
  signal: AbortSignal,
) => void;

type Mount = (parent: HTMLElement, controls: HTMLElement, room: AttentionRoom, signal: AbortSignal) => void;
const alone =
  (mount: LowerView): Mount =>
  (parent, controls, { store, client }, signal) =>
    mount(parent, controls, store, client, signal);

const VIEWS: Record<Tab, [string, string, Mount]> = {
  attention: ["Attention", "Where heads look, and what they contribute", mountAttention],
  positions: ["Positions", "What each component adds at each position", alone(mountPositions)],
  "token-lens": ["Token lens", "The likeliest tokens at each layer and position", alone(mountTokenLens)],
  prompts: ["Prompts", "How the values vary from prompt to prompt", alone(mountPrompts)],
  why: ["Why", "Why a head reads a token, and what was written there", alone(mountWhy)],
  runs: ["Runs", "Two compared runs, or direct and total effects, head by head", alone(mountRuns)],
};
const TABS = (Object.keys(VIEWS) as Tab[]).map((tab) => [tab, ...VIEWS[tab]] as const);
let panels = 0;

export function mountLower(parent: HTMLElement, room: AttentionRoom, signal: AbortSignal): void {
  const { store } = room;
  const id = `rs-lower-${++panels}`;
  const tabs = element("div", "rs-tabs", { role: "tablist", "aria-label": "Views" });
  const row = element("div", "rs-lower-title", {}, tabs);
  parent.append(row);

  for (const [tab, , , mount] of TABS) {
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
    mount(view, controls, room, signal);
  }

  // With a single prompt there is no tab of prompts, though Python or the previous cache may have chosen it.
  watch(signal, () => {
    if (store.facts.value?.prompts === 1 && store.tab.value === "prompts") store.tab.value = "attention";
  });
  // Without a comparison, and without an effect for which the model is run, there is no tab of runs.
  const hasRuns = computed(() => store.against.value !== null || store.effect.value !== "direct");
  watch(signal, () => {
    if (!hasRuns.value && store.tab.value === "runs") store.tab.value = "attention";
  });
  const isThere = (tab: Tab): boolean =>
    tab === "prompts" ? (store.facts.value?.prompts ?? 1) > 1 : tab !== "runs" || hasRuns.value;
  const there = computed(() => TABS.filter(([tab]) => isThere(tab)));
  watch(signal, () => {
    const chosen = store.tab.value;
    render(
      there.value.map(
        ([tab, name, tip]) => html`<button type="button" role="tab" id=${`${id}-${tab}-tab`} title=${tip}
            aria-controls=${`${id}-${tab}`}
        aria-selected=${chosen === tab} tabindex=${chosen === tab ? 0 : -1} data-tab=${tab}
            @click=${() => (store.tab.value = tab)}>${name}</button>`,
      ) ?? nothing,
      tabs,
    );
  });
  tabs.addEventListener(
    "keydown",
    (event) => {
      const names = there.peek().map(([tab]) => tab);
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

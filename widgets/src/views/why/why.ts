// Why: what the present target inside the model is made of. An attention score has a query side, a key side, and what
// the head then moves. Other targets (what a head moves, a neuron, a direction) have one sum.
import { computed, signal as state } from "@preact/signals-core";
import { html, render } from "lit-html";
import { parseHead } from "../../base/format";
import { element, watch } from "../../base/lifetime";
import { type ReadPicture, shownAs } from "../../export/pictures";
import { isOutdated } from "../../state/loader";
import { PAIRED } from "../../state/questions";
import { isInside, readAt, scoreIn } from "../../state/target";
import { ask, askNeuron, askWhy, instead } from "../../state/trail";
import { stepWords } from "../../state/trail-words";
import { whyOf } from "../../state/view-questions";
import { mountTrouble } from "../../ui/caption";
import type { Component } from "../../wire/components";
import type { AttentionRoom } from "../attention/attention-room";
import { written as attentionWords } from "../attention/attention-scale";
import { strongest } from "../attention/attention-words";
import type { TabView } from "../tab-view";
import { askHead } from "./ask-head";
import { type Acts, FEW, mountColumns } from "./why-columns";
import { mountControls } from "./why-controls";
import { type Column, whyData } from "./why-data";
import { WHY } from "./why-export";
import { mountPairs } from "./why-pairs";
import { whyPicture } from "./why-picture";
import { mountWritten } from "./why-written";

/** The number of sources that are offered while no target inside the model is selected. */
const OFFERED = 4;

export const why: TabView = {
  name: "Why",
  tip: "Why a head reads a token, and what was written there",
  chapter: () => "why",
  requests: ({ shown, last, facts }) => whyOf(shown, last, facts.parallel ?? []),
  options: () => [],
  mount,
};

function mount(
  parent: HTMLElement,
  controls: HTMLElement,
  { store, client }: AttentionRoom,
  signal: AbortSignal,
): ReadPicture {
  const k = state(PAIRED);
  const many = state(false);
  const failed = state<string | null>(null);
  const data = whyData(store, client, k, signal);
  const inside = computed(() => isInside(store.target.value));
  const score = computed(() => scoreIn(store.target.value));
  const inPairs = computed(() => score.value !== null && store.whyShows.value === "pairs");

  /** "L23H3 at ·to₁₄ reads ·John₁₀ and not <|im_start|>" */
  const askedWords = (): string => {
    const { before, name, after } = stepWords(store, {
      target: store.target.value,
      position: store.chosenPosition.value,
    });
    return before + name + after;
  };

  const invitation = element("div", "rs-why-invites");
  const caption = element("p", "rs-caption");
  const columns = element("div", "rs-why-columns");
  const pairs = element("div", "rs-why-pairs");
  const written = element("div", "rs-why-written");
  const trouble = element("p", "rs-view-trouble", { role: "note" });
  const picture = element("div", "rs-why-picture", {}, columns, pairs, written);
  parent.append(invitation, caption, element("div", "rs-view-place", {}, picture, trouble));

  mountControls(controls, store, k, data.sources, signal);
  mountTrouble(trouble, picture, signal, () => (inside.value ? (failed.value ?? data.trouble.value) : null));
  watch(signal, () => {
    void store.path.value;
    failed.value = null;
  });
  watch(signal, () => {
    invitation.hidden = inside.value;
    caption.hidden = picture.hidden = !inside.value;
    columns.hidden = inPairs.value;
    pairs.hidden = !inPairs.value;
    picture.classList.toggle("rs-waiting", data.waiting.value);
  });
  watch(signal, () => {
    const words = inPairs.value
      ? "Each cell: what a pair of components, one of the query ↓ and one of the key →, adds to the score. Rows sum " +
        "to the query side, columns to the key side."
      : score.value
        ? `These rows sum to an attention score, not to a logit: ${askedWords()}. Each side alone sums to the ` +
          "whole score."
        : "Only what was written before this point adds to it.";
    caption.textContent = words;
  });

  const say = (error: unknown): void => {
    if (signal.aborted || isOutdated(error, store)) return;
    failed.value = error instanceof Error ? error.message : String(error);
  };
  const acts: Acts = {
    canAsk: ({ kind }: Component) => kind === "head" || kind === "neuron",
    ask: (component, column) => act(component, column, "moves"),
    why: (component, column) => act(component, column, "reads"),
    show: (column) => {
      if (column.id === "moved") ask(store, column.target, column.position);
      else instead(store, column.target);
    },
  };
  function act({ kind, layer, index, label }: Component, column: Column, what: "moves" | "reads"): void {
    if (kind === "head") askHead(store, client, label, column, what).catch(say);
    else if (kind === "neuron" && layer !== null && index !== null)
      askNeuron(store, { layer, index }, readAt(column.target, column.position) ?? column.position);
  }
  mountColumns(
    columns,
    store,
    data.columns,
    computed(() => score.value?.side ?? "query"),
    many,
    acts,
    signal,
  );
  mountPairs(pairs, store, data.pairs.shown, signal);
  mountWritten(
    written,
    store,
    () => data.written.shown.value,
    () => data.written.trouble.value,
    signal,
  );

  watch(signal, () => {
    const reading = store.reading.value;
    const head = reading ? parseHead(reading.head) : null;
    const sources = reading && head ? strongest(reading.weights, OFFERED) : [];
    render(
      reading && sources.length > 0
        ? html`<p>Hover over an attention cell and press <kbd>w</kbd>, or choose a token:
            why does <b class="rs-name">${reading.head}</b> read it?</p>
            <div class="rs-why-sources">${sources.map(
              (source) => html`<button type="button" class="rs-chip" data-source=${source}
                title="What in the query and the key makes ${reading.head} read ${store.tokenName(source)}?"
                @click=${() => askWhy(store, { ...reading, source })}><span dir="auto">${store.tokenName(source)}</span>
                <small>${attentionWords("pattern", reading.weights[source] ?? 0)}</small></button>`,
            )}</div>`
        : html`<p>Point at a head in the map. Then ask here why it reads a token, and what was written there.</p>`,
      invitation,
    );
  });
  watch(signal, () => void (store.tab.value === "why" || (many.value = false)));
  return () => {
    const shown =
      data.waiting.peek() || data.trouble.peek() !== null ? null : whyPicture(store, data, many.peek() ? 20 : FEW);
    return shown && shownAs(WHY, shown);
  };
}

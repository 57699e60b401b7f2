// The heads that add most and take away most. Below them the ledger, which shows what the whole sum is made of.
import { computed } from "@preact/signals-core";
import { html, nothing, render, type TemplateResult } from "lit-html";
import { signed } from "../../base/format";
import { element, watch } from "../../base/lifetime";
import { rank } from "../../state/ranked";
import type { Store } from "../../state/store";
import { prose } from "../../ui/prose";
import { ledger } from "../header/ledger";
import { addArrowKeys, type Ranked, rankLine, reachOf } from "./rank-line";
import { headSpread, overPrompts } from "./spread";

export function mountTopHeads(parent: HTMLElement, store: Store, signal: AbortSignal): void {
  const list = element("div", "rs-ranking", { role: "list", "aria-label": "Top heads" });
  const sum = element("div", "rs-ledger");
  parent.append(list, sum);

  const ranked = computed(() => {
    const facts = store.facts.value;
    const rows = store.headRows.value?.rows;
    if (!facts || !rows) return null;
    const { plus, minus } = rank(rows.subarray(0, facts.layers * facts.heads), facts.heads, store.topK.value);
    const spread = (ranked: Ranked): Ranked => ({ ...ranked, spread: headSpread(store, ranked.name) });
    return { plus: plus.map(spread), minus: minus.map(spread) };
  });

  watch(signal, () => {
    const found = ranked.value;
    list.style.setProperty("--k", String(store.topK.value));
    const reach = reachOf(found ? [...found.plus, ...found.minus] : []);
    const pinned = store.heads.value;
    const hovered = store.hoveredHead.value;
    const item = (ranked: Ranked, index: number): TemplateResult => html`
      <div role="listitem" class="rs-ranked">
        <button type="button" data-head=${ranked.name}
            aria-label="${ranked.name} ${signed(ranked.value, store.largest.value)}${overPrompts(
              ranked.spread ?? null,
              store.largest.value,
            )}" aria-pressed=${pinned.includes(ranked.name)}
          class="rs-rank-line ${
            ranked.value < 0 && index === 0 ? "rs-first-minus" : ""
          } ${ranked.name === hovered ? "rs-hover" : ""}">${rankLine(
            ranked,
            reach,
            store.largest.value,
            ranked.name === hovered,
          )}</button>
      </div>`;
    const why = store.reasonNotDrawn("heads") ?? store.headRows.value?.reply.refusal;
    render(
      why
        ? html`<p class="rs-none">${prose(why)}</p>`
        : found
          ? html`${found.plus.map(item)}${found.minus.map(item)}`
          : nothing,
      list,
    );
  });

  watch(signal, () => {
    const facts = store.facts.value;
    const data = store.headRows.value;
    render(
      facts && data && store.reasonNotDrawn("heads") === null
        ? ledger(data, facts.layers * facts.heads, store.quantity.value)
        : nothing,
      sum,
    );
  });

  const headOf = (event: Event): string | null =>
    (event.target instanceof Element ? event.target.closest<HTMLElement>("[data-head]")?.dataset["head"] : null) ??
    null;
  const enter = (event: Event): void => {
    const head = headOf(event);
    if (head) store.hover(head);
  };
  list.addEventListener("pointerover", enter, { signal });
  list.addEventListener("focusin", enter, { signal });
  list.addEventListener("pointerleave", () => store.hover(null), { signal });
  list.addEventListener("focusout", () => store.hover(null), { signal });
  list.addEventListener(
    "click",
    (event) => {
      const head = headOf(event);
      if (head) store.togglePin(head);
    },
    { signal },
  );
  addArrowKeys(list, "button", signal);
}

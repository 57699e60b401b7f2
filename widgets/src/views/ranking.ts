// Ranking: the heads that add most and take away most. Beneath it the ledger: where the whole sum comes from.
import { computed } from "@preact/signals-core";
import { html, nothing, render, type TemplateResult } from "lit-html";
import type { Client } from "../client";
import { limitOf } from "../draw/colours";
import { headName, signed } from "../format";
import { element, watch } from "../lifetime";
import type { Store } from "../store";
import { ledger } from "./ledger";

interface Ranked {
  name: string;
  value: number;
}

export function rank(values: Float32Array, heads: number, k: number): { plus: Ranked[]; minus: Ranked[] } {
  const all = Array.from(values, (value, i) => ({ name: headName(Math.floor(i / heads), i % heads), value }));
  const sorted = all.filter((r) => Number.isFinite(r.value)).sort((a, b) => b.value - a.value);
  return {
    plus: sorted.filter((r) => r.value > 0).slice(0, k),
    minus: sorted.filter((r) => r.value < 0).reverse().slice(0, k),
  };
}

export function mountRanking(parent: HTMLElement, store: Store, _client: Client, signal: AbortSignal): void {
  const title = element("div", "rs-title");
  const list = element("div", "rs-ranking", { role: "list", "aria-label": "Top heads" });
  const sum = element("div", "rs-ledger");
  parent.append(title, list, sum);

  const ranked = computed(() => {
    const facts = store.facts.value;
    const rows = store.headRows.value?.rows;
    if (!facts || !rows) return null;
    return rank(rows.subarray(0, facts.layers * facts.heads), facts.heads, store.topK.value);
  });

  watch(signal, () => {
    const k = store.topK.value;
    const step = (by: number) => () => (store.topK.value = Math.max(1, Math.min(20, k + by)));
    render(
      html`<h3>Top heads</h3>
        <div class="rs-stepper" role="group" aria-label="How many heads each way">
          <button type="button" aria-label="Fewer heads" ?disabled=${k <= 1} @click=${step(-1)}>−</button>
          <span>${k} each way</span>
          <button type="button" aria-label="More heads" ?disabled=${k >= 20} @click=${step(1)}>+</button>
        </div>`,
      title,
    );
  });

  watch(signal, () => {
    const found = ranked.value;
    const k = store.topK.value;
    list.style.setProperty("--k", String(k));
    list.classList.toggle("rs-stale", store.problems.value.has("heads"));
    const limit = found ? limitOf([...found.plus, ...found.minus].map((r) => r.value)) : 0;
    const pinned = store.heads.value;
    const hovered = store.hoveredHead.value;
    const item = ({ name, value }: Ranked, index: number): TemplateResult => html`
      <div role="listitem" class="rs-ranked ${value < 0 && index === 0 ? "rs-first-minus" : ""}">
        <button type="button" data-head=${name} aria-label="${name} ${signed(value)}" aria-pressed=${pinned.includes(name)}
          class=${name === hovered ? "rs-hover" : ""}>
          <span class="rs-name">${name}</span>
          <span class="rs-track"><i class=${value < 0 ? "rs-minus" : "rs-plus"} style="width:${limit > 0 ? (Math.abs(value) / limit) * 100 : 0}%"></i></span>
          <span class="rs-number ${value < 0 ? "rs-minus" : "rs-plus"}">${signed(value)}</span>
        </button>
      </div>`;
    render(found ? html`${found.plus.map(item)}${found.minus.map(item)}` : nothing, list);
  });

  watch(signal, () => {
    const facts = store.facts.value;
    const data = store.headRows.value;
    sum.classList.toggle("rs-stale", store.problems.value.has("heads"));
    render(facts && data ? ledger(data, facts.layers * facts.heads, store.quantity.value) : nothing, sum);
  });

  const headOf = (event: Event): string | null =>
    (event.target instanceof Element ? event.target.closest<HTMLElement>("[data-head]")?.dataset["head"] : null) ?? null;
  const enter = (event: Event): void => {
    const head = headOf(event);
    if (head) store.hover(head);
  };
  list.addEventListener("pointerover", enter, { signal });
  list.addEventListener("focusin", enter, { signal });
  list.addEventListener("pointerleave", () => store.hover(null), { signal });
  list.addEventListener("focusout", () => store.hover(null), { signal });
  list.addEventListener("keydown", (event) => {
    const buttons = [...list.querySelectorAll("button")];
    const at = buttons.findIndex((button) => button === event.target);
    const last = buttons.length - 1;
    const to = { ArrowDown: Math.min(at + 1, last), ArrowUp: Math.max(at - 1, 0), Home: 0, End: last }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    buttons[to]?.focus();
  }, { signal });
  list.addEventListener("click", (event) => {
    const head = headOf(event);
    if (head) store.togglePin(head);
  }, { signal });
}

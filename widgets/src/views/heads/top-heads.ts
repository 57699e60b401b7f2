// The heads that add most and take away most; for the difference of two runs, the heads that differ most. Below them is
// the ledger: the sums of the groups of rows.
import { computed } from "@preact/signals-core";
import { html, nothing, render, type TemplateResult } from "lit-html";
import { parseHead, signed } from "../../base/format";
import { element, watch } from "../../base/lifetime";
import { limitOf } from "../../draw/colours";
import { isEstimated } from "../../state/effects";
import { mostDifferent, type Pair, rank } from "../../state/ranked";
import type { Store } from "../../state/store";
import { RestingPlace } from "../../ui/pointer";
import { prose } from "../../ui/prose";
import { ledger } from "../header/ledger";
import { endsOfPairs, pairLine } from "./pair-line";
import { addArrowKeys, type Ranked, rankLine, reachOf } from "./rank-line";
import { readWords } from "./read-words";
import { headSpread, overPrompts } from "./spread";

export function mountTopHeads(parent: HTMLElement, store: Store, signal: AbortSignal): void {
  const list = element("div", "rs-ranking", { role: "list", "aria-label": "Top heads" });
  const sum = element("div", "rs-ledger");
  parent.append(list, sum);

  /** The heads that differ most between two runs; null while a single run is shown. */
  const pairs = computed<Pair[] | null>(() => {
    const facts = store.facts.value;
    const compared = store.runs.heads.value;
    if (!facts || !compared || store.runs.shown.value !== "difference") return null;
    const mapped = ({ rows }: { rows: Float32Array }): Float32Array => rows.subarray(0, facts.layers * facts.heads);
    const { first, second, difference } = compared;
    const runs = { first: mapped(first), second: mapped(second), difference: mapped(difference) };
    return mostDifferent(runs, facts.heads, 2 * store.topK.value);
  });
  const ranked = computed(() => {
    const facts = store.facts.value;
    const values = store.headValues.value;
    if (!facts || !values) return null;
    const { plus, minus } = rank(values, facts.heads, store.topK.value);
    const effect = store.effectShown.value;
    const found = store.effects.heads.found.value;
    const alone = effect === "direct" && store.runs.rows.value === store.headRows.value;
    const isEstimate = (name: string): boolean => {
      const head = parseHead(name);
      return (
        effect !== "direct" && !!found && !!head && isEstimated(found, effect, head.layer * facts.heads + head.head)
      );
    };
    const spread = (ranked: Ranked): Ranked => ({
      ...ranked,
      spread: alone ? headSpread(store, ranked.name) : null,
      isEstimate: isEstimate(ranked.name),
    });
    return { plus: plus.map(spread), minus: minus.map(spread) };
  });

  watch(signal, () => {
    const found = ranked.value;
    list.style.setProperty("--k", String(store.topK.value));
    const reach = reachOf(found ? [...found.plus, ...found.minus] : []);
    const isCaused = store.effectShown.value !== "direct";
    const largest = isCaused ? limitOf(store.headValues.value ?? []) : store.largest.value;
    const pinned = store.heads.value;
    const hovered = store.hoveredHead.value;
    const line = (name: string, words: string, mark: string, content: TemplateResult): TemplateResult => html`
      <div role="listitem" class="rs-ranked">
        <button type="button" data-head=${name} aria-label="${name} ${words}" aria-pressed=${pinned.includes(name)}
          class="rs-rank-line ${mark} ${name === hovered ? "rs-hover" : ""}">${content}</button>
      </div>`;
    const item = (ranked: Ranked, index: number): TemplateResult =>
      line(
        ranked.name,
        ranked.isEstimate
          ? `about ${signed(ranked.value, largest, -1)} (estimate)`
          : signed(ranked.value, largest) + overPrompts(ranked.spread ?? null, largest),
        ranked.value < 0 && index === 0 ? "rs-first-minus" : "",
        rankLine(ranked, reach, largest, ranked.name === hovered),
      );
    const both = pairs.value;
    const ends = endsOfPairs(both ?? []);
    const most = Math.max(ends.high, -ends.low);
    const pair = (of: Pair): TemplateResult =>
      line(
        of.name,
        `${signed(of.value, most)}: ${signed(of.first, most)} in A, ${signed(of.second, most)} in B`,
        "",
        pairLine(of, ends, most),
      );
    const why = isCaused ? null : (store.runs.whyNoRows() ?? store.runs.rows.value?.reply.refusal);
    render(
      why
        ? html`<p class="rs-none">${prose(why)}</p>`
        : both
          ? html`${both.map(pair)}${both.length === 0 ? html`<p class="rs-none">No head differs.</p>` : nothing}`
          : found
            ? html`${found.plus.map(item)}${found.minus.map(item)}`
            : nothing,
      list,
    );
  });

  watch(signal, () => {
    const facts = store.facts.value;
    const data = store.runs.rows.value;
    const compared = store.runs.shown.value === "difference" ? store.runs.heads.value : null;
    if (store.effectShown.value !== "direct")
      return render(
        html`<p class="rs-read-line">Effects of single heads do not add up to the ${store.quantity.value}: a head also
          acts through others.</p>`,
        sum,
      );
    render(
      facts && data && store.runs.whyNoRows() === null
        ? html`${ledger(data, facts.layers * facts.heads, compared ? "B − A" : store.quantity.value)}${
            compared ? html`<p class="rs-read-line">${readWords(compared)}</p>` : nothing
          }`
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
  const pointer = new RestingPlace();
  list.addEventListener(
    "pointerover",
    (event) => {
      const head = headOf(event);
      if (head) pointer.enter(head);
      enter(event);
    },
    { signal },
  );
  list.addEventListener("focusin", enter, { signal });
  list.addEventListener("pointerleave", () => store.endHover(pointer.leave()), { signal });
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

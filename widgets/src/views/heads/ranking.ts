// The ranking: the heads or neurons that add most and take away most. The user chooses heads or neurons, and how many.
import { html, render, type TemplateResult } from "lit-html";
import { headName, plural } from "../../base/format";
import { element, watch } from "../../base/lifetime";
import { effectName } from "../../state/effect-words";
import { scoreName } from "../../state/map-picture";
import type { Ranking, Store } from "../../state/store";
import type { Client } from "../../wire/client";
import { layerChoice } from "./layer-choice";
import { mountNeurons } from "./neurons";
import { mountTopHeads } from "./top-heads";

const RANKINGS: [Ranking, string, string][] = [
  ["heads", "Heads", "The attention heads that add most and take away most"],
  ["neurons", "Neurons", "The MLP neurons that add most and take away most, of a layer or of all"],
];
const MOST = 20;

export function mountRanking(parent: HTMLElement, store: Store, _client: Client, signal: AbortSignal): void {
  const title = element("div", "rs-title");
  const choice = element("div", "rs-rank-choice");
  // Both views share one place, so that the box keeps its height when the user switches.
  const views = { heads: element("div", "rs-rank-view"), neurons: element("div", "rs-rank-view") };
  const by = element("p", "rs-ranked-by", { hidden: "" });
  parent.append(title, choice, by, element("div", "rs-rank-views", {}, views.heads, views.neurons));

  watch(signal, () => {
    const ranking = store.ranking.value;
    render(
      html`<h3>Top ${ranking}${ranking === "heads" && store.runs.shown.value === "difference" ? ": B − A" : ""}</h3>
        <div class="rs-switch" role="group" aria-label="What is ranked">
          ${RANKINGS.map(
            ([name, text, tip]) => html`<button type="button" aria-pressed=${ranking === name} title=${tip}
            @click=${() => (store.ranking.value = name)}>${text}</button>`,
          )}
        </div>`,
      title,
    );
  });

  watch(signal, () => {
    const words = rankedBy(store);
    by.hidden = words === null;
    by.textContent = words ?? "";
  });

  watch(signal, () => {
    const k = store.topK.value;
    const what = store.ranking.value;
    const facts = store.facts.value;
    const step = (by: number) => () => (store.topK.value = Math.max(1, Math.min(MOST, k + by)));
    render(
      html`${
        what === "neurons"
          ? layerChoice(store)
          : store.runs.shown.value === "difference"
            ? runKey(store)
            : store.effectShown.value === "direct" && store.runs.rows.value?.std
              ? html`<span
                title=${
                  `The mean over ${plural(store.runs.rows.value.reply.prompts, "prompt")}; the whisker reaches one ` +
                  "standard deviation to either side. Hover over a line to see a dot for each prompt."
                }><i
            class="rs-key-whisker"
                aria-hidden="true"></i>± std over ${plural(store.runs.rows.value.reply.prompts, "prompt")}</span>`
              : html`<span>${
                  facts ? `of ${plural(facts.layers, "layer")} × ${plural(facts.heads, "head")}` : ""
                }</span>`
      }
        <div class="rs-stepper" role="group" aria-label="How many ${what} each way">
          <button type="button" aria-label="Fewer ${what}" ?disabled=${k <= 1} @click=${step(-1)}>−</button>
          <span>${k} each way</span>
          <button type="button" aria-label="More ${what}" ?disabled=${k >= MOST} @click=${step(1)}>+</button>
        </div>`,
      choice,
    );
  });

  watch(signal, () => {
    for (const [name] of RANKINGS) views[name].toggleAttribute("inert", store.ranking.value !== name);
    views.neurons.classList.toggle("rs-recount", store.computingNeurons.value > 0);
  });

  mountTopHeads(views.heads, store, signal);
  mountNeurons(views.neurons, store, signal);
}

/** Which bar belongs to which run. Where there is no room for their names, the tooltip has them. */
function runKey(store: Store): TemplateResult {
  const [first, second] = store.runs.names.value ?? ["", ""];
  const tip =
    `The heads that differ most between A (${first}) and B (${second}). Upper bar: what a head adds in A. Lower, ` +
    "paler bar: in B. To the right of the line it adds, to the left it takes away. The number is B − A.";
  return html`<span class="rs-run-key" title=${tip}><i class="rs-run-first" aria-hidden="true"></i>A<b>${first}</b><i
      class="rs-run-second" aria-hidden="true"></i>B<b>${second}</b></span>`;
}

/** By what heads or neurons are ranked, if the map shows anything but contributions; otherwise null. */
function rankedBy(store: Store): string | null {
  const [score, feeds, effect] = [store.score.value, store.feeds.value, store.effectShown.value];
  const shows =
    feeds !== null
      ? `what feeds ${headName(feeds.layer, feeds.head)}`
      : score !== null
        ? scoreName(score)
        : effect === "direct"
          ? null
          : effectName(effect, store.replacedBy.value === "other");
  if (shows === null) return null;
  // No run measures the effects of neurons.
  const isRanked = effect !== "direct" && store.ranking.value === "heads";
  if (!isRanked) return `by contribution; the map shows ${shows}`;
  return effect === "estimate" ? `by ${shows}` : `by ${shows}; hatched: estimated`;
}

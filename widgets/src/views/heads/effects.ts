// The line below the head map while the map shows effects for which the model is run: what the runs replace, how far
// the runs are, and whether an unchanged run gave the same values as the cache.

import { batch } from "@preact/signals-core";
import { html, nothing, render, type TemplateResult } from "lit-html";
import { keysOf } from "../../base/keys-of";
import { legibleSentence } from "../../base/legible";
import { element, watch } from "../../base/lifetime";
import type { Effect, Effects, ReplacedBy } from "../../state/effects";
import type { Store } from "../../state/store";
import { prose } from "../../ui/prose";

const ANOTHER = "Choosing another one runs your model, between cells.";
const RUNS_THE_MODEL = "This runs your model, between cells.";
/** The effects in the order of the switch, with their tooltips. */
export const EFFECTS: [Effect, string][] = [
  ["direct", "What each head adds through the stream alone. The model is not run"],
  ["total", `What each head adds, including its effects through later layers. ${RUNS_THE_MODEL}`],
  ["indirect", `What each head adds through later layers: total − direct. ${RUNS_THE_MODEL}`],
  ["estimate", `The total effect of each head, estimated by one gradient. ${RUNS_THE_MODEL}`],
];
const REPLACED_BY: Record<ReplacedBy, [string, string]> = {
  zero: ["zero", "A head’s output is replaced by zero"],
  mean: ["mean over prompts", "A head’s output is replaced by its mean over the prompts"],
  other: ["compared run", "A head’s output is replaced by its output in the compared run"],
};

/** Whether an effect can be chosen: a saved page has none, unless it was saved with one. */
export function choosable(store: Store): (effect: Effect) => boolean {
  const isStored = store.effect.peek() !== "direct";
  return (effect) => effect === "direct" || !store.isSaved.value || isStored;
}

/** The user chooses an effect: this starts the runs that it needs. */
export function chooseEffect(store: Store, effect: Effect): void {
  batch(() => {
    store.score.value = store.feeds.value = null;
    store.effect.value = effect;
    if (effect === "direct") return;
    if (store.against.value !== null) store.run.value = "first"; // effects are of one run
    if (store.effects.heads.state.value !== "done") store.effects.heads.start();
  });
}

export function mountEffects(parent: HTMLElement, store: Store, signal: AbortSignal): void {
  const { heads } = store.effects;
  watch(signal, () => {
    const effect = store.effectShown.value;
    parent.hidden = effect === "direct";
    if (effect === "direct") return render(nothing, parent);
    const found = heads.found.value?.reply;
    const isWhole = effect === "estimate" && (heads.found.value?.estimate.some(Number.isFinite) ?? false);
    render(
      html`<p class="rs-effects-state" role=${heads.isMeasuring.value ? nothing : "status"}>${measuredWords(
        heads,
        store.isSaved.value,
        isWhole,
      )}</p>
        <div class="rs-effects-row">${replayed(found?.replayed ?? "", store.isSaved.value)}${replacedBy(store)}</div>`,
      parent,
    );
  });
}

/** How far the runs are, with a button that stops or continues them. */
export function measuredWords(effects: Effects, isSaved: boolean, isWhole = false): TemplateResult {
  const { done = 0, total = 0 } = effects.found.value?.reply ?? {};
  const count = total > 0 ? `${done} of ${total}` : "";
  const start = (): void => effects.start();
  const stop = (): void => effects.stop();
  const button = (words: string, act: () => void): TemplateResult | typeof nothing =>
    isSaved
      ? nothing
      : html`<button type="button" class="rs-act" title=${act === start ? RUNS_THE_MODEL : "Stop the runs"}
          @click=${act}>${words}</button>`;
  if (effects.refusal.value !== null) return html`<span>not measured</span> ${button("try again", start)}`;
  switch (effects.state.value) {
    case "measuring": {
      const behind = effects.behind.value;
      const words =
        behind === "cell"
          ? "waits for the running cell"
          : behind === "kernel"
            ? "waits for the kernel"
            : count === ""
              ? "running the model …"
              : `measuring ${count}`;
      const order =
        behind === null && count !== "" ? html`<span class="rs-effects-order"> · strongest first</span>` : nothing;
      return html`<span>${words}</span>${order} ${button("stop", stop)}`;
    }
    case "done":
      return html`<span>${done === 1 ? "measured" : `all ${done} measured`}</span>`;
    default:
      if (isWhole) return html`<span>estimated by one gradient</span>`;
      return done > 0
        ? html`<span>${count} measured</span> ${button("go on", start)}`
        : html`<span>not measured</span> ${button("measure", start)}`;
  }
}

/** The badge of what is measured: whether an unchanged run gave the same values as the cache. */
export function replayed(words: string, isPast: boolean): TemplateResult | typeof nothing {
  if (words === "") return nothing;
  const said = words.startsWith("replayed") ? words : `replayed: ${words}`;
  const title = `${said}. The model was run again without a change, and compared with the cache.`;
  return html`<p class="rs-replayed ${isPast ? "rs-unmeasured" : "rs-agrees"}" title=${legibleSentence(title)}>${
    isPast ? "" : "✓ "
  }${prose(said)}</p>`;
}

/** The choice of what takes the place of a head's output. */
function replacedBy(store: Store): TemplateResult {
  const value = store.replacedBy.value;
  const isThere = (name: ReplacedBy): boolean => name !== "other" || store.against.value !== null || name === value;
  const choose = (event: Event): void => {
    batch(() => {
      store.replacedBy.value = (event.target as HTMLSelectElement).value as ReplacedBy;
      store.effects.heads.start();
    });
  };
  const names = keysOf(REPLACED_BY).filter(isThere);
  return html`<label class="rs-replaced-by" title="${REPLACED_BY[value][1]}. ${ANOTHER}"><span
      class="rs-replaced-word">replaced</span> by <span
      class="rs-choice"><select aria-label="What takes the place of a head’s output" .value=${value}
        ?disabled=${store.isSaved.value} @change=${choose}>${names.map(
          (name) => html`<option value=${name} ?selected=${name === value}>${REPLACED_BY[name][0]}</option>`,
        )}</select></span></label>`;
}

/** The switch between the effects, where there is room for it. */
export function mountEffectSwitch(parent: HTMLElement, store: Store, signal: AbortSignal): void {
  const names = element("span", "rs-switch rs-effect-switch", { role: "group", "aria-label": "Effect of each head" });
  parent.append(names);
  const isThere = choosable(store);
  watch(signal, () => {
    parent.hidden = store.score.value !== null || store.feeds.value !== null;
    const shown = store.effectShown.value;
    render(
      EFFECTS.map(
        ([name, tip]) => html`<button type="button" data-effect=${name} aria-pressed=${shown === name} title=${tip}
          ?disabled=${!isThere(name)}
          @click=${() => chooseEffect(store, name)}>${name}</button>`,
      ),
      names,
    );
  });
}

// The line below the head map while the map shows effects for which the model is run: what the runs replace, how far
// the runs are, and whether an unchanged run gave the same values as the cache.

import { batch } from "@preact/signals-core";
import { html, nothing, render, type TemplateResult } from "lit-html";
import { keysOf } from "../../base/keys-of";
import { legibleSentence } from "../../base/legible";
import { element, watch } from "../../base/lifetime";
import { againstKey } from "../../state/comparison";
import { effectTip, valueWords } from "../../state/effect-words";
import type { Effect, Effects, ReplacedBy } from "../../state/effects";
import type { Store } from "../../state/store";
import { prose } from "../../ui/prose";

const ANOTHER = "Another choice here runs your model, between cells.";
const RUNS_THE_MODEL = "This runs your model, between cells.";
/** The effects in the order of the switch. */
export const EFFECTS: readonly Effect[] = ["direct", "total", "indirect", "estimate"];
const REPLACED_BY: Record<ReplacedBy, [string, string]> = {
  zero: ["zero", "A head’s output is replaced by zero. The map shows what it adds: minus the change"],
  mean: ["mean over prompts", "A head’s output is replaced by its mean. The map shows what it adds: minus the change"],
  other: ["compared run", "A head’s output is replaced by its output in B. The map shows the change"],
};

/**
 * Whether the user can choose an effect. On a saved page, only the direct effect can be chosen, unless the page was
 * saved with another effect.
 */
export function choosable(store: Store): (effect: Effect) => boolean {
  const isStored = store.effect.peek() !== "direct";
  return (effect) => effect === "direct" || !store.isSaved.value || isStored;
}

/** Selects an effect, and starts the runs that it needs. */
export function chooseEffect(store: Store, effect: Effect): void {
  batch(() => {
    store.score.value = store.feeds.value = null;
    store.effect.value = effect;
    if (effect === "direct") return;
    if (store.against.value !== null) store.run.value = "first"; // effects are measured for the first run only
    if (takesOther(store)) store.replacedBy.value = "other";
    if (store.effects.heads.state.value !== "done") store.effects.heads.start();
  });
}

/**
 * Whether the heads of the compared run are put in, because another run is compared and the user has not chosen
 * otherwise. They can be put in only if the positions of both runs are paired by their index.
 */
function takesOther({ against, replacedBy, effects, runs, prompt, facts }: Store): boolean {
  const other = against.peek();
  if (other === null || other.without?.length || replacedBy.peek() !== "zero") return false;
  if (effects.heads.chosenIn === againstKey(other)) return false;
  const isOfOne = other.cache == null && prompt.peek() === null && (facts.peek()?.prompts ?? 1) > 1;
  return !isOfOne && (runs.pairing.peek()?.how ?? "index") === "index";
}

export function mountEffects(parent: HTMLElement, store: Store, signal: AbortSignal): void {
  const { heads } = store.effects;
  watch(signal, () => {
    // When the comparison ends (Python may end it, too), there is no other run that could be put in.
    if (store.against.value === null && store.replacedBy.peek() === "other") store.replacedBy.value = "zero";
  });
  watch(signal, () => {
    const effect = store.effectShown.value;
    parent.hidden = effect === "direct";
    if (effect === "direct") return render(nothing, parent);
    const found = heads.found.value?.reply;
    const role = heads.isMeasuring.value ? nothing : "status";
    render(
      html`<p class="rs-effects-state" role=${role}>${stateWords(heads, isWhole(store))}<span
          class="rs-effects-values">${valueWords(store.replacedBy.value === "other")}</span></p>
        <div class="rs-effects-row">${
          found?.replayed ? replayed(found.replayed, store.isSaved.value) : html`<p class="rs-replayed"></p>`
        }${replacedBy(store)}</div>`,
      parent,
    );
  });
}

/** How far the runs are, with a button that starts, stops or continues them. */
export function measuredWords(effects: Effects, isSaved: boolean): TemplateResult {
  return html`${stateWords(effects, false)} ${runButton(effects, isSaved, false)}`;
}

/** How far the runs are. If `isWhole`, the effect that is shown needs no more runs. */
function stateWords(effects: Effects, isWhole: boolean): TemplateResult {
  const count = countOf(effects);
  const { done = 0 } = effects.found.value?.reply ?? {};
  if (effects.refusal.value !== null) return html`<span>not measured</span>`;
  switch (effects.state.value) {
    case "measuring": {
      const behind = effects.behind.value;
      if (behind !== null)
        return html`<span>${behind === "cell" ? "waits for the running cell" : "waits for the kernel"}</span>`;
      if (count === "") return html`<span>running the model …</span>`;
      return html`<span>measuring ${count}</span><span class="rs-effects-order"> · strongest first</span>`;
    }
    case "done":
      return html`<span>${done === 1 ? "measured" : `all ${done} measured`}</span>`;
    default:
      if (isWhole) return html`<span>estimated by one gradient</span>`;
      return html`<span>${done > 0 ? `${count} measured` : "not measured"}</span>`;
  }
}

/** How many effects were measured: "12 of 270"; empty before this is known. */
function countOf(effects: Effects): string {
  const { done = 0, total = 0 } = effects.found.value?.reply ?? {};
  return total > 0 ? `${done} of ${total}` : "";
}

/** The button that starts, stops or continues the runs; nothing if there is nothing to do. */
function runButton(effects: Effects, isSaved: boolean, isWhole: boolean): TemplateResult | typeof nothing {
  if (isSaved) return nothing;
  const start = (): void => effects.start();
  const button = (words: string, act = start): TemplateResult =>
    html`<button type="button" class="rs-act" title=${act === start ? RUNS_THE_MODEL : "Stop the runs"}
        @click=${act}>${words}</button>`;
  if (effects.refusal.value !== null) return button("try again");
  switch (effects.state.value) {
    case "measuring":
      return button("stop", () => effects.stop());
    case "done":
      return nothing;
    default:
      return isWhole ? nothing : button((effects.found.value?.reply.done ?? 0) > 0 ? "go on" : "measure");
  }
}

/** Mounts the button above the map, where it is always visible, and the number of measured effects. */
export function mountRunButton(parent: HTMLElement, store: Store, signal: AbortSignal): void {
  const { heads } = store.effects;
  watch(signal, () => {
    const act = store.effectShown.value === "direct" ? nothing : runButton(heads, store.isSaved.value, isWhole(store));
    parent.hidden = act === nothing;
    const { done = 0, total = 0 } = heads.found.value?.reply ?? {};
    const count =
      heads.isMeasuring.value && total > 0 ? html`<span aria-hidden="true">${done}/${total}</span>` : nothing;
    render(act === nothing ? nothing : html`${count}${act}`, parent);
  });
}

/** Whether the estimate is shown, and its values are there. They arrive all together, so no more runs are needed. */
function isWhole({ effectShown, effects }: Store): boolean {
  return effectShown.value === "estimate" && (effects.heads.found.value?.estimate.some(Number.isFinite) ?? false);
}

/** A badge that says how an unchanged run of the model compares with the cache. */
export function replayed(words: string, isPast: boolean): TemplateResult | typeof nothing {
  if (words === "") return nothing;
  const title = `${words}. The model was run again without a change, and compared with the cache.`;
  // One line: a part for which there is no room is left out.
  const parts = `${isPast ? "" : "✓ "}${words}`.split(/(?= \()|(?=, )/);
  return html`<p class="rs-replayed rs-fit ${isPast ? "rs-unmeasured" : "rs-agrees"}"
      title=${legibleSentence(title)}>${parts.map((part) => html`<span>${prose(part)}</span>`)}</p>`;
}

/** The choice of what takes the place of a head's output. */
function replacedBy(store: Store): TemplateResult {
  const value = store.replacedBy.value;
  const isThere = (name: ReplacedBy): boolean => name !== "other" || store.against.value !== null || name === value;
  const choose = (event: Event): void => {
    batch(() => {
      store.replacedBy.value = (event.target as HTMLSelectElement).value as ReplacedBy;
      store.effects.heads.chosenIn = store.against.value && againstKey(store.against.value);
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

/** The switch between the effects. CSS shows it where there is room. */
export function mountEffectSwitch(parent: HTMLElement, store: Store, signal: AbortSignal): void {
  const names = element("span", "rs-switch rs-effect-switch", { role: "group", "aria-label": "Effect of each head" });
  parent.append(names);
  const isThere = choosable(store);
  watch(signal, () => {
    parent.hidden = store.score.value !== null || store.feeds.value !== null;
    const shown = store.effectShown.value;
    render(
      EFFECTS.map(
        (name) => html`<button type="button" data-effect=${name} aria-pressed=${shown === name}
          title=${effectTip(name, store.replacedBy.value === "other")}
          ?disabled=${!isThere(name)}
          @click=${() => chooseEffect(store, name)}>${name}</button>`,
      ),
      names,
    );
  });
}

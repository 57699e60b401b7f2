// The token strip if each position has its own target. The tint of a token shows what the head, neuron or layer in
// focus adds to it; if nothing is in focus, how surprising the token was. A key next to the tokens names what is shown.
import { computed, type ReadonlySignal, untracked } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import { signed } from "../../base/format";
import { element, watch } from "../../base/lifetime";
import { endsOf } from "../../draw/clipped";
import { css, divergingGradient, divergingRgb, sequentialGradient, sequentialRgb } from "../../draw/colours";
import { inkOn } from "../../draw/ink";
import { answerFrom, hasNext, ofAnswer, showsEach } from "../../state/next-tokens";
import { NEXT, type Store } from "../../state/store";
import { prose } from "../../ui/prose";
import { eachWords } from "../header/badge-each";
import type { Added } from "./next-values";
import { predictedWords } from "./next-words";
import { featureScale, showsFeature } from "./strip-feature";

export function paintNext(
  strip: HTMLElement,
  store: Store,
  added: ReadonlySignal<Added | null>,
  drawn: ReadonlySignal<number>,
  signal: AbortSignal,
): void {
  const largest = computed(() => surpriseOf(store));
  watch(signal, () => {
    void drawn.value;
    if (!showsEach(store) || showsFeature(store)) return;
    const found = store.nextShown.value;
    const theme = store.theme.value;
    const shown = added.value;
    const most = largest.value;
    strip.classList.toggle("rs-painted", found !== null);
    strip.dataset["head"] = shown?.name ?? "";
    for (const option of strip.querySelectorAll<HTMLElement>("[data-position]")) {
      const at = Number(option.dataset["position"]) - 1;
      const value = shown ? (shown.values[at] ?? NaN) : -(found?.logProb[at] ?? NaN);
      option.removeAttribute("data-attention");
      option.removeAttribute("aria-description");
      if (!found || !Number.isFinite(value) || !untracked(() => hasNext(store, at))) {
        option.removeAttribute("data-value");
        option.style.cssText = "";
        continue;
      }
      const colour = shown ? divergingRgb(value, shown.limit, theme) : sequentialRgb(value / most, theme);
      option.dataset["value"] = value.toFixed(4);
      option.setAttribute(
        "aria-description",
        [shown ? `${shown.name} adds ${signed(value, shown.limit)}` : "", predictedWords(store, at)]
          .filter((part) => part !== "")
          .join("; "),
      );
      option.style.cssText = `--read:${css(colour)};--ink:${inkOn(colour)}`;
    }
  });
}

/** The largest −log p of the tokens (only of the answer, if it is known where it begins), but at least 1. */
export function surpriseOf(store: Store): number {
  const { logProb = new Float32Array(0) } = store.nextShown.value ?? {};
  return ofAnswer(store, logProb).reduce((most, value) => (Number.isFinite(value) ? Math.max(most, -value) : most), 1);
}

export function mountNextKey(
  parent: HTMLElement,
  store: Store,
  added: ReadonlySignal<Added | null>,
  signal: AbortSignal,
): void {
  const line = element("div", "rs-next-key", { hidden: "" });
  parent.append(line);
  watch(signal, () => {
    line.hidden = !store.asksEach.value;
    if (line.hidden) return render(nothing, line);
    const failure = store.problems.value.get(NEXT) ?? null;
    const each = showsEach(store);
    const sum = eachWords(store);
    const shown = added.value;
    const theme = store.theme.value;
    const most = surpriseOf(store);
    const mean = store.isMean.value ? "mean surprise" : "surprise";
    const limit = shown?.limit ?? 0;
    const [low, high] = shown
      ? endsOf(shown.values, { low: -limit, high: limit }, (value) => signed(value, limit))
      : ["", ""];
    const surprise = (store.nextShown.value?.logProb ?? []).some((value) => -value > most)
      ? `≥ ${most.toFixed(1)}`
      : most.toFixed(1);
    const whose = answerFrom(store) > 0 ? html`<span class="rs-scale-of"> · colours for the answer</span>` : nothing;
    const toRight = (gradient: string): string => gradient.replace("to top", "to right");
    const feature = store.featureShown.value;
    const scale = feature
      ? html`<span class="rs-next-what">activation of <b>feature ${feature.reply.feature}</b></span>
          ${featureScale(feature, theme)}`
      : !each
        ? html`<span class="rs-next-what">what the head in focus reads</span>`
        : shown
          ? html`<span class="rs-next-what"><b>${shown.name}</b> adds to each token${whose}</span>
          <span class="rs-scale" role="img"
            aria-label="colours from ${low} to ${high}"
          >${low}<i style="background-image:${toRight(divergingGradient(theme))}"></i>${high}</span>`
          : html`<span class="rs-next-what">${mean}: −log p of each token${whose}</span>
          <span class="rs-scale" role="img" aria-label="colours from 0 to ${surprise}"
          >0<i style="background-image:${sequentialGradient(theme)}"></i>${surprise}</span>`;
    const button = (reads: boolean, words: string, tip: string) => html`<button type="button"
        aria-pressed=${store.stripReads.value === reads} title=${tip}
        @click=${() => (store.stripReads.value = reads)}>${words}</button>`;
    render(
      html`${failure === null ? scale : html`<span class="rs-broken" role="alert">${prose(failure)}</span>`}
        <span class="rs-switch" role="group" aria-label="Colours of the tokens">${button(
          false,
          "each token",
          "What the head or layer in focus adds to each token; without one, how surprising each token was",
        )}${button(true, "attention", "What the head in focus reads at the selected position")}</span>
        <span class="rs-next-sum">${sum === null ? nothing : `${sum.short} add up`}</span>`,
      line,
    );
  });
}

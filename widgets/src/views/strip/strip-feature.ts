// The token strip if a feature of an SAE is chosen: a token's tint shows the feature's activation there. While a head
// is under the pointer, the strip shows what that head reads.
import type { ReadonlySignal } from "@preact/signals-core";
import { html, type TemplateResult } from "lit-html";
import { plain, signed } from "../../base/format";
import { watch } from "../../base/lifetime";
import type { Sentence } from "../../base/sentence";
import {
  css,
  divergingGradient,
  divergingRgb,
  limitOf,
  type Rgb,
  sequentialGradient,
  sequentialRgb,
  type Theme,
} from "../../draw/colours";
import { inkOn } from "../../draw/ink";
import type { FeatureTokens } from "../../state/feature-tokens";
import type { Store } from "../../state/store";

/** The number of tokens that are named. */
const MOST = 3;

/** Whether the strip shows the activations of a feature, not what a head reads. */
export function showsFeature(store: Store): boolean {
  return store.featureShown.value !== null && store.hoveredHead.value === null;
}

/** An activation in words: without a sign, unless some activations of the feature are negative. */
export function activation({ values }: FeatureTokens, at: number): string {
  const [value, limit] = [values[at] ?? NaN, limitOf(values)];
  return isSigned(values) ? signed(value, limit) : plain(value, limit);
}

/** The colour of an activation on the scale of all activations of the feature. */
export function activationRgb(values: Float32Array, value: number, theme: Theme): Rgb {
  const limit = limitOf(values);
  return isSigned(values) ? divergingRgb(value, limit, theme) : sequentialRgb(limit > 0 ? value / limit : 0, theme);
}

const isSigned = (values: Float32Array): boolean => values.some((value) => value < 0);

export function paintFeature(
  strip: HTMLElement,
  store: Store,
  drawn: ReadonlySignal<number>,
  signal: AbortSignal,
): void {
  watch(signal, () => {
    void drawn.value;
    const found = store.featureShown.value;
    if (!found || !showsFeature(store)) return;
    const { values, reply } = found;
    const theme = store.theme.value;
    strip.classList.add("rs-painted");
    strip.dataset["head"] = "";
    for (const option of strip.querySelectorAll<HTMLElement>("[data-position]")) {
      const at = Number(option.dataset["position"]);
      const value = values[at] ?? NaN;
      option.removeAttribute("data-attention");
      option.removeAttribute("aria-description");
      if (!Number.isFinite(value)) {
        option.removeAttribute("data-value");
        option.style.cssText = "";
        continue;
      }
      const colour = activationRgb(values, value, theme);
      option.dataset["value"] = value.toFixed(4);
      option.setAttribute("aria-description", `feature ${reply.feature}: activation ${activation(found, at)}`);
      option.style.cssText = `--read:${css(colour)};--ink:${inkOn(colour)}`;
    }
  });
}

/** The sentence about a token: the activation of the feature there. */
export function featureSentence(store: Store, at: number): Sentence {
  const found = store.featureShown.value;
  const token = `“${store.tokenName(at)}” at position ${at}`;
  if (!found || !Number.isFinite(found.values[at])) return [token];
  return [`${token}: activation of feature ${found.reply.feature} `, { stress: activation(found, at) }];
}

/** The tokens with the largest activations: "most at ·and 8.78, When 7.10, ·Mary 6.93"; "" if all are 0. */
export function mostWords(store: Store, found: FeatureTokens): string {
  const order = [...found.values.keys()].filter((at) => Math.abs(found.values[at] ?? NaN) > 0);
  order.sort((a, b) => Math.abs(found.values[b] ?? 0) - Math.abs(found.values[a] ?? 0));
  const words = order.slice(0, MOST).map((at) => `${store.tokenName(at)} ${activation(found, at)}`);
  return words.length > 0 ? `most at ${words.join(", ")}` : "";
}

/** The scale of the colours. */
export function featureScale(found: FeatureTokens, theme: Theme): TemplateResult {
  const limit = limitOf(found.values);
  if (limit === 0) return html`<span>inactive at every token</span>`;
  const hasSign = isSigned(found.values);
  const [low, high] = hasSign ? [signed(-limit, limit), signed(limit, limit)] : ["0", plain(limit, limit)];
  const gradient = (hasSign ? divergingGradient(theme) : sequentialGradient(theme)).replace("to top", "to right");
  return html`<span class="rs-scale" role="img" aria-label="colours from ${low} to ${high}"
    >${low}<i style="background-image:${gradient}"></i>${high}</span>`;
}

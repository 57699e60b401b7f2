// The choice of what colours the head map: an effect of each head, a score for a known kind of head, or what each head
// adds to the query, key or value of another head ("feeds").
import { batch } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import { headName, parseHead } from "../../base/format";
import { legibleSentence } from "../../base/legible";
import { element, watch } from "../../base/lifetime";
import { effectTip } from "../../state/effect-words";
import type { Effect } from "../../state/effects";
import { holdOf } from "../../state/held-scale";
import { SCORE_NAMES } from "../../state/map-picture";
import type { Values } from "../../state/selectable";
import type { Score, Store } from "../../state/store";
import { feedsWords } from "../../state/trail-words";
import { strongest } from "../attention/attention-words";
import { choosable, chooseEffect, EFFECTS, mountEffectSwitch } from "./effects";

type Feeds = NonNullable<Values["feeds"]>;
const FEEDS: [Feeds["by"], string][] = [
  ["query", "feeds its query"],
  ["key", "feeds its key"],
  ["value", "feeds its value"],
];

const optionOf = (effect: Effect): string => (effect === "direct" ? "" : `effect ${effect}`);

/** The head in focus, and the source that it reads most; null if this is not known. */
function fed(store: Store): Omit<Feeds, "by"> | null {
  const reading = store.reading.value;
  const head = reading ? parseHead(reading.head) : null;
  const source = reading ? strongest(reading.weights, 1)[0] : undefined;
  return head && source !== undefined ? { ...head, source } : null;
}

export function mountScoreChoice(parent: HTMLElement, store: Store, signal: AbortSignal): void {
  // The button that holds the colour scale. Scores do not need it, because the scale of a score never changes.
  const hold = holdOf(store, "heads");
  const held = element("span", "rs-hold-place");
  const effects = element("span", "rs-effect-place");
  parent.before(effects, held);
  mountEffectSwitch(effects, store, signal);
  hold.follow(store, signal);
  const isThere = choosable(store);
  watch(signal, () => render(store.score.value === null ? hold.button("the head map") : nothing, held));
  watch(signal, () => {
    const score = store.score.value;
    const { reply } = store.scores.value ?? {};
    const feeds = store.feeds.value;
    const of = feeds ?? fed(store);
    const tip = feeds
      ? feedsWords(store, feeds)
      : score === null
        ? store.effectShown.value === "direct"
          ? `What each head adds to the ${store.runs.quantity.value}: blue adds, orange takes away`
          : effectTip(store.effectShown.value, store.replacedBy.value === "other")
        : reply?.score === score
          ? legibleSentence([reply.meaning, ...reply.notes].join(" "))
          : "";
    const effect = store.effectShown.value;
    const choose = (event: Event): void => {
      const { value } = event.target as HTMLSelectElement;
      const caused = EFFECTS.find((name) => value === optionOf(name));
      if (caused) return chooseEffect(store, caused);
      const by = FEEDS.find(([name]) => `feeds ${name}` === value)?.[0];
      batch(() => {
        store.feeds.value = by && of ? { ...of, by } : null;
        store.score.value = by ? null : (value as Score);
      });
    };
    const chosen = feeds ? `feeds ${feeds.by}` : (score ?? optionOf(effect));
    parent.classList.toggle("rs-compact", score === null && !feeds);
    render(
      html`<select aria-label="What colours the head map" title=${tip} .value=${chosen} @change=${choose}>
        <optgroup label="the effect of each head">
          ${EFFECTS.filter(isThere).map(
            (name) =>
              html`<option value=${optionOf(name)} title=${effectTip(name, store.replacedBy.value === "other")}
                ?selected=${chosen === optionOf(name)}>${
                  name === "direct" ? "what each adds" : name === "estimate" ? "estimate" : `${name} effect`
                }</option>`,
          )}
        </optgroup>
        <optgroup label="a score of each head">
          ${SCORE_NAMES.map(
            ([name, words]) => html`<option value=${name} ?selected=${name === score}>${words}</option>`,
          )}
        </optgroup>
        ${
          of === null || (store.isSaved.value && !feeds) // a saved page has only what was shown
            ? nothing
            : html`<optgroup
              label="what feeds ${headName(of.layer, of.head)}, where it reads ${store.tokenName(of.source)}">
              ${FEEDS.map(
                ([name, words]) =>
                  html`<option value="feeds ${name}" ?selected=${feeds?.by === name}>${
                    feeds?.by === name ? `feeds ${headName(of.layer, of.head)}: ${name}` : words
                  }</option>`,
              )}</optgroup>`
        }
      </select>`,
      parent,
    );
  });
}

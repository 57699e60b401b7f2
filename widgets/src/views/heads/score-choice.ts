// The choice of what colours the head map: contributions, or a score for a known kind of head.
import { html, nothing, render } from "lit-html";
import { element, watch } from "../../base/lifetime";
import { holdOf } from "../../state/held-scale";
import { SCORES } from "../../state/map-picture";
import type { Score, Store } from "../../state/store";

export function mountScoreChoice(parent: HTMLElement, store: Store, signal: AbortSignal): void {
  // Only contributions need a held scale: a score always has the same one.
  const hold = holdOf(store, "heads");
  const held = element("span", "rs-hold-place");
  parent.before(held);
  hold.follow(store, signal);
  watch(signal, () => render(store.score.value === null ? hold.button("the head map") : nothing, held));
  watch(signal, () => {
    const score = store.score.value;
    const { reply } = store.scores.value ?? {};
    const tip =
      score === null
        ? `What each head adds to the ${store.quantity.value}: blue adds, orange takes away`
        : reply?.score === score
          ? [reply.meaning, ...reply.notes].join(" ")
          : "";
    const choose = (event: Event): void => {
      const { value } = event.target as HTMLSelectElement;
      store.score.value = value === "" ? null : (value as Score);
    };
    render(
      html`<select aria-label="What colours the head map" title=${tip} .value=${score ?? ""} @change=${choose}>
        <option value="" ?selected=${score === null}>what each adds</option>
        <optgroup label="a score of each head">
          ${SCORES.map(([name, words]) => html`<option value=${name} ?selected=${name === score}>${words}</option>`)}
        </optgroup>
      </select>`,
      parent,
    );
  });
}

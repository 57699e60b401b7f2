// "Why here?" and "who put it?": two small buttons next to the sentence, and the keys w and p. The questions
// are about the attention cell or the token that was pointed at last, else about what the head in focus reads most.
import { computed, untracked } from "@preact/signals-core";
import { html, render } from "lit-html";
import { isInText, isPlainKey } from "../../base/keyboard";
import { element, watch } from "../../base/lifetime";
import type { Spot } from "../../state/reading";
import type { Store } from "../../state/store";
import { askWho, askWhy, canAskWho } from "../../state/trail";
import { strongest } from "../attention/attention-words";

export function mountAskHere(parent: HTMLElement, root: HTMLElement, store: Store, signal: AbortSignal): void {
  const place = element("div", "rs-ask-here", { role: "group", "aria-label": "Ask about what is read" });
  parent.append(place);

  // When the head, the target, the prompt or the cache changes, the cell that was pointed at last is forgotten.
  watch(signal, () => {
    void store.reading.value?.head;
    void store.path.value;
    void store.prompt.value;
    void store.dataKey.value;
    untracked(() => (store.spot.value = null));
  });
  const spot = computed((): Spot | null => {
    if (store.spot.value) return store.spot.value;
    const reading = store.reading.value;
    const source = reading ? strongest(reading.weights, 1)[0] : undefined;
    return reading && source !== undefined ? { head: reading.head, destination: reading.destination, source } : null;
  });

  watch(signal, () => {
    const at = spot.value;
    place.classList.toggle("rs-none", at === null);
    const token = at === null ? "" : store.tokenName(at.source);
    const who = at !== null && canAskWho(store, at);
    render(
      html`<button type="button" class="rs-ask" data-ask="why" aria-disabled=${at === null}
          aria-label=${at === null ? "why here?" : `why here? ${at.head} reads ${token}`}
          title=${at === null ? "" : `Why does ${at.head} read ${token}? (key w)`}
          @click=${() => at && askWhy(store, at)}>why here?</button>
        <button type="button" class="rs-ask" data-ask="who" aria-disabled=${!who}
          aria-label=${at === null ? "who put it?" : `who put it? what ${at.head} moves from ${token}`}
          title=${
            at === null
              ? ""
              : who
                ? `Which components wrote what ${at.head} moves from ${token}? (key p)`
                : `${at.head} does not write to the target of this step`
          }
          @click=${() => at && askWho(store, at)}>who put it?</button>`,
      place,
    );
  });

  root.addEventListener(
    "keydown",
    (event) => {
      const at = spot.peek();
      if (!at || !isPlainKey(event) || isInText(event) || event.target instanceof HTMLSelectElement) return;
      if (event.key === "w") askWhy(store, at);
      else if (event.key === "p") askWho(store, at);
      else return;
      event.preventDefault();
    },
    { signal },
  );
}

// The footer: one sentence for what is under the pointer or the focus. Its height is fixed.
import { html, render } from "lit-html";
import type { Client } from "../client";
import { fitted } from "../legible";
import { element, watch } from "../lifetime";
import type { Sentence, Store } from "../store";
import { headSentence } from "./head-words";
import { mapPicture } from "./map-picture";

const HINT: Sentence = ["Hover over a head to see where it looks; click to keep it. Click a token to read the model there. Esc lets go."];

export function mountSentence(parent: HTMLElement, store: Store, _client: Client, signal: AbortSignal): void {
  const line = element("p", "rs-sentence", { "aria-live": "polite" });
  parent.append(line);
  const picture = mapPicture(store);
  watch(signal, () => {
    const own = store.sentence.value;
    const sentence = own ?? headSentence(store, picture.value) ?? HINT;
    line.classList.toggle("rs-hint", sentence === HINT);
    render(
      html`${sentence.map((part) => typeof part === "string" ? fitted(part) : html`<b class=${part.sign < 0 ? "rs-minus" : "rs-plus"}>${part.stress}</b>`)}`,
      line,
    );
  });
}

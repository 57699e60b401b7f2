// The views below the charts have captions. A caption explains what its view shows and how to read it. If the kernel
// sent notes, a chip next to the caption shows them.
import { html, nothing, render, type TemplateResult } from "lit-html";
import { legibleSentence } from "../base/legible";
import { watch } from "../base/lifetime";
import type { Store } from "../state/store";
import { prose } from "./prose";

export function mountCaption(
  node: HTMLElement,
  store: Store,
  signal: AbortSignal,
  read: () => { words: string; notes: string[] },
): void {
  watch(signal, () => {
    const { words, notes } = read();
    render(html`<span>${prose(words)}</span>${noteChip(store, notes)}`, node);
  });
}

/** A chip that shows notes while the user points at it or focuses it; nothing if there are none. */
export function noteChip(store: Store, notes: string[]): TemplateResult | typeof nothing {
  const note = notes.join(" ");
  if (note === "") return nothing;
  const show = (): void => void (store.sentence.value = [note]);
  const hide = (): void => void (store.sentence.value = null);
  return html`<span class="rs-card-note" role="note" tabindex="0" title=${legibleSentence(note)}
      aria-label="note: ${legibleSentence(note)}" @pointerenter=${show} @focus=${show} @pointerleave=${hide}
      @blur=${hide}>note</span>`;
}

/** Shows why a picture is missing. `read` returns the reason, or null if there is a picture. `act` adds a button. */
export function mountTrouble(
  node: HTMLElement,
  picture: HTMLElement,
  signal: AbortSignal,
  read: () => string | null,
  act: () => TemplateResult | typeof nothing = () => nothing,
): void {
  watch(signal, () => {
    const trouble = read();
    node.hidden = trouble === null;
    picture.toggleAttribute("inert", trouble !== null);
    render(trouble === null ? nothing : html`${prose(trouble)}${act()}`, node);
  });
}

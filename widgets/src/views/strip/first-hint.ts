// The hint for a first visit: what to do first. It is in the place of the sentence line while that line is empty, so
// nothing moves. It goes away when the user pins a head or presses the hint's button. A saved picture never has it.
import { type ReadonlySignal, untracked } from "@preact/signals-core";
import { keepFocus } from "../../base/keyboard";
import { element, watch } from "../../base/lifetime";
import type { Store } from "../../state/store";
import { endFirstVisit, firstVisit } from "../../ui/first-visit";

/** `hasSentence`: whether the sentence line has a sentence. Then the hint is hidden. */
export function mountFirstHint(
  parent: HTMLElement,
  store: Store,
  hasSentence: ReadonlySignal<boolean>,
  signal: AbortSignal,
): void {
  const isFirst = firstVisit(signal);
  const label = "Hide this hint";
  const close = element("button", "rs-quiet", { type: "button", "aria-label": label, title: label }, "×");
  const hint = element("p", "rs-first-hint", {}, "Move over a cell of the head map; click to pin it.", close);
  parent.append(hint);
  close.addEventListener("click", () => keepFocus(parent, endFirstVisit), { signal });
  let before = store.heads.peek().length;
  watch(signal, () => {
    const now = store.heads.value.length;
    const isPinned = now > before;
    before = now;
    if (isPinned && !store.isSaved.peek()) untracked(endFirstVisit);
  });
  watch(signal, () => {
    hint.hidden = !isFirst.value || store.isSaved.value || hasSentence.value;
  });
}

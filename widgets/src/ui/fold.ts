// A button that folds a section to its title, in the narrow layout. The section stays folded until it is unfolded.
import { element, watch } from "../base/lifetime";
import type { Section } from "../state/selectable";
import type { Store } from "../state/store";

export function mountFold(section: HTMLElement, name: Section, words: string, store: Store, signal: AbortSignal): void {
  const button = element("button", "rs-fold", { type: "button" });
  section.prepend(button);
  watch(signal, () => {
    const isFolded = store.folded.value.includes(name);
    section.classList.toggle("rs-folded", isFolded);
    button.setAttribute("aria-expanded", String(!isFolded));
    button.setAttribute("aria-label", `${words}: ${isFolded ? "unfold" : "fold"}`);
  });
  button.addEventListener(
    "click",
    () => {
      const folded = store.folded.peek();
      store.folded.value = folded.includes(name) ? folded.filter((other) => other !== name) : [...folded, name];
    },
    { signal },
  );
}

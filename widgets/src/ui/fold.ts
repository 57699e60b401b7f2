// In the narrow layout a section can be folded to its title, and stays folded.
import { element, watch } from "../base/lifetime";
import type { Section } from "../state/selectable";
import type { Store } from "../state/store";

export function mountFold(section: HTMLElement, name: Section, words: string, store: Store, signal: AbortSignal): void {
  const button = element("button", "rs-fold", { type: "button" });
  section.prepend(button);
  watch(signal, () => {
    const folded = store.folded.value.includes(name);
    section.classList.toggle("rs-folded", folded);
    button.setAttribute("aria-expanded", String(!folded));
    button.setAttribute("aria-label", `${words}: ${folded ? "unfold" : "fold"}`);
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

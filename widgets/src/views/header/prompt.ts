// The choice of the prompt: a single prompt, or the mean of all that have no padding at the position. Prompts are
// numbered from 0, as in Python. The choice is hidden if there is only one prompt.
import { html, nothing, render } from "lit-html";
import { watch } from "../../base/lifetime";
import type { Store } from "../../state/store";

export function mountPrompt(parent: HTMLElement, store: Store, signal: AbortSignal): void {
  let last = 0;
  watch(signal, () => {
    const count = store.facts.value?.prompts ?? 1;
    const prompt = store.prompt.value;
    if (prompt !== null) last = prompt;
    const go = (to: number): void => {
      if (Number.isInteger(to)) store.prompt.value = Math.max(0, Math.min(count - 1, to));
    };
    const one = prompt !== null;
    const isKnown = !one && !store.runs.areAwaited.value;
    const averaged = (isKnown ? store.runs.rows.value?.reply.prompts : null) ?? count;
    const mean =
      averaged < count
        ? `The mean over ${averaged} of ${count} prompts: in the others, the position is padding`
        : "The mean over all prompts";
    if (count <= 1) return render(nothing, parent);
    render(
      html`<div class="rs-switch" role="group" aria-label="Prompt">
        <button type="button" aria-pressed=${!one} title=${mean}
            @click=${() => (store.prompt.value = null)}>mean<span class="rs-mean-of"> of ${averaged}</span></button>
        <span class="rs-step ${one ? "rs-on" : ""}" title="as in Python: prompt 0 is the first">
          <button type="button" aria-label="Previous prompt" ?disabled=${one && prompt <= 0}
              @click=${() => go(one ? prompt - 1 : last)}>‹</button>
          <button type="button" class="rs-plain" aria-label="One prompt" aria-pressed=${one}
              @click=${() => go(last)}>prompt</button>
          <input type="number" inputmode="numeric" min="0" max=${count - 1} aria-label="Prompt number"
              .value=${String(prompt ?? last)}
            style="width:${String(count - 1).length + 1}ch"
            @click=${() => go(last)} @change=${(event: Event) => go((event.target as HTMLInputElement).valueAsNumber)}>
          <button type="button" aria-label="Next prompt" ?disabled=${one && prompt >= count - 1}
              @click=${() => go(one ? prompt + 1 : last)}>›</button>
        </span>
      </div>`,
      parent,
    );
  });
}

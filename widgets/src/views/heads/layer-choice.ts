// The choice of the layer whose neurons are listed, or all layers. The arrows wrap around at both ends.
import { html, type TemplateResult } from "lit-html";
import type { Store } from "../../state/store";

export function layerChoice(store: Store): TemplateResult {
  const layers = store.facts.value?.layers ?? 0;
  const layer = store.layer.value;
  const choose = (value: number | null): void => void (store.layer.value = value);
  const step = (by: number) => () => {
    const to = ((layer ?? -1) + 1 + by + layers + 1) % (layers + 1); // 0 stands for all layers
    choose(to === 0 ? null : to - 1);
  };
  return html`<div class="rs-stepper rs-layer-choice" role="group" aria-label="Layer of the neurons">
    <button type="button" aria-label="Previous layer" @click=${step(-1)}>‹</button>
    <select aria-label="Layer" .value=${String(layer ?? "")}
      @change=${(event: Event) => {
        const { value } = event.target as HTMLSelectElement;
        choose(value === "" ? null : Number(value));
      }}>
      <option value="" ?selected=${layer === null}>all layers</option>
      ${Array.from({ length: layers }, (_, l) => html`<option value=${l} ?selected=${layer === l}>layer ${l}</option>`)}
    </select>
    <button type="button" aria-label="Next layer" @click=${step(1)}>›</button>
  </div>`;
}

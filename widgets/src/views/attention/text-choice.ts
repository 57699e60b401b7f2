// The choice of the heads that the text view shows: some of the pinned heads, all heads of a layer, or all heads.
import { computed, type ReadonlySignal, signal as state } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import { watch } from "../../base/lifetime";
import { headColour } from "../../draw/head-colours";
import type { AttentionRoom } from "./attention-room";
import type { Wanted } from "./text-picture";

export interface TextChoice {
  wanted: ReadonlySignal<Wanted>;
  /** The colour of a head's bars. */
  colour: (head: string) => string;
}

export function mountTextChoice(parent: HTMLElement, room: AttentionRoom, signal: AbortSignal): TextChoice {
  const { store } = room;
  /** The pinned heads that the user has left out. */
  const leftOut = state<ReadonlySet<string>>(new Set());
  /** `{ layer: 3 }`: all heads of layer 3. `{ layer: null }`: all heads of the model. Null: single heads. */
  const blend = state<{ layer: number | null } | null>(null);
  /** The layer that is selected in the list of layers; null before the first choice. */
  const layer = state<number | null>(null);

  const wanted = computed((): Wanted => {
    const hovered = store.hoveredHead.value;
    // While the user points at a head, or has moved to it with the keyboard, only this head is shown.
    if (hovered !== null && !store.isAbsent(hovered)) return { heads: [hovered] };
    if (blend.value) return blend.value;
    const heads = store.heads.value;
    if (heads.length > 0) return { heads: heads.filter((head) => !leftOut.value.has(head)) };
    return { heads: store.preview.value === null ? [] : [store.preview.value] };
  });

  watch(signal, () => {
    const heads = store.heads.value;
    const stillPinned = [...leftOut.peek()].filter((head) => heads.includes(head));
    // A head that is unpinned is no longer left out: if the user pins it again, it is included.
    if (stillPinned.length < leftOut.peek().size) leftOut.value = new Set(stillPinned);
  });

  const toggle = (head: string): void => {
    // If all heads of a layer or of the model were shown, only this head is shown now.
    const next = new Set(blend.peek() ? store.heads.peek() : leftOut.peek());
    if (!next.delete(head)) next.add(head);
    leftOut.value = next;
    blend.value = null;
  };
  const toggleBlend = (next: number | null): void => {
    const now = blend.peek();
    blend.value = now && now.layer === next ? null : { layer: next };
  };

  watch(signal, () => {
    const heads = store.heads.value;
    const layers = store.facts.value?.layers ?? 0;
    const chosen = Math.min(layer.value ?? layers - 1, layers - 1);
    const now = blend.value;
    const isOn = (head: string): boolean => now === null && !leftOut.value.has(head);
    const isLayerOn = now !== null && now.layer !== null;
    render(
      html`${heads.map(
        (
          head,
        ) => html`<button type="button" class="rs-head-chip" aria-pressed=${isOn(head)} style="--colour:${colour(head)}"
            title="${isOn(head) ? "Leave out" : "Include"} ${head}"
                @click=${() => toggle(head)}>${head}</button>`,
      )}
        ${
          heads.length === 0
            ? html`<span
            class="rs-no-heads">no head is pinned: click heads to superpose them</span>`
            : nothing
        }
        <span class="rs-layer-chip ${isLayerOn ? "rs-on" : ""}">
          <button type="button" aria-pressed=${isLayerOn} @click=${() => toggleBlend(chosen)}>all of layer</button>
          <select aria-label="Layer whose heads are superposed" .value=${String(chosen)}
            @change=${(event: Event) => {
              layer.value = Number((event.target as HTMLSelectElement).value);
              blend.value = { layer: layer.value };
            }}>${Array.from(
              { length: layers },
              (_, l) => html`<option value=${l}
                ?selected=${l === chosen}>${l}</option>`,
            )}</select>
        </span>
        <button type="button" class="rs-head-chip rs-plain" aria-pressed=${now !== null && now.layer === null}
            @click=${() => toggleBlend(null)}>all heads</button>`,
      parent,
    );
  });

  function colour(head: string): string {
    return headColour(Math.max(0, store.heads.value.indexOf(head)));
  }
  return { wanted, colour };
}

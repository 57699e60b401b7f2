// The choice of the heads whose attention the text view shades: some pinned heads, all heads of a layer, or all heads.
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
  const off = state<ReadonlySet<string>>(new Set());
  const blend = state<{ layer: number | null } | null>(null);
  const layer = state<number | null>(null);

  const wanted = computed((): Wanted => {
    const hovered = store.hoveredHead.value;
    // While a head is pointed at, in the map or the ranking, it is shown alone.
    if (hovered !== null && !store.isAbsent(hovered)) return { heads: [hovered] };
    if (blend.value) return blend.value;
    const heads = store.heads.value;
    if (heads.length > 0) return { heads: heads.filter((head) => !off.value.has(head)) };
    return { heads: store.preview.value === null ? [] : [store.preview.value] };
  });

  watch(signal, () => {
    const heads = store.heads.value;
    const left = [...off.peek()].filter((head) => heads.includes(head));
    if (left.length < off.peek().size) off.value = new Set(left); // a head that is pinned again is on
  });

  const toggle = (head: string): void => {
    const next = new Set(blend.peek() ? store.heads.peek() : off.peek()); // after a blend: this head alone
    if (!next.delete(head)) next.add(head);
    off.value = next;
    blend.value = null;
  };
  const take = (next: number | null): void => {
    const now = blend.peek();
    blend.value = now && now.layer === next ? null : { layer: next };
  };

  watch(signal, () => {
    const heads = store.heads.value;
    const layers = store.facts.value?.layers ?? 0;
    const chosen = Math.min(layer.value ?? layers - 1, layers - 1);
    const now = blend.value;
    const on = (head: string): boolean => now === null && !off.value.has(head);
    const layerOn = now !== null && now.layer !== null;
    render(
      html`${heads.map(
        (
          head,
        ) => html`<button type="button" class="rs-head-chip" aria-pressed=${on(head)} style="--colour:${colour(head)}"
            title="${on(head) ? "Leave out" : "Include"} ${head}"
                @click=${() => toggle(head)}>${head}</button>`,
      )}
        ${
          heads.length === 0
            ? html`<span
            class="rs-no-heads">no head is pinned: click heads to superpose them</span>`
            : nothing
        }
        <span class="rs-layer-chip ${layerOn ? "rs-on" : ""}">
          <button type="button" aria-pressed=${layerOn} @click=${() => take(chosen)}>all of layer</button>
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
            @click=${() => take(null)}>all heads</button>`,
      parent,
    );
  });

  function colour(head: string): string {
    return headColour(Math.max(0, store.heads.value.indexOf(head)));
  }
  return { wanted, colour };
}

// The controls next to the tabs: the presentation of attention, the weighting, the colour range, and the colour scale.
import { computed } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import { watch } from "../../base/lifetime";
import { stepOf } from "../../draw/plane";
import type { Presentation, Store, Weighting } from "../../state/store";
import type { AttentionRoom } from "./attention-room";
import { gradient, meaningOf, NAMES, UNITS, WEIGHTINGS, written } from "./attention-scale";

const PRESENTATIONS: [Presentation, string, string][] = [
  ["matrix", "Matrix", "The pinned heads side by side: destination × source"],
  ["text", "Text", "The prompt as text: hover over a token to see what it reads"],
  ["all", "All heads", "A thumbnail of every head of the model"],
];
const RANGES: [own: boolean, string, string][] = [
  [false, "shared", "One colour scale for all pictures on screen, so that they can be compared"],
  [true, "own", "Each picture’s colours end at its own largest value, so that faint pictures can be read"],
];

const POOLS: [Store["pool"]["value"], string, string][] = [
  [
    "peak",
    "strongest",
    "This prompt is long: in a whole matrix each cell shows the value farthest from zero in a block of cells, " +
      "so that no peak is lost",
  ],
  ["mean", "mean", "This prompt is long: in a whole matrix each cell shows the mean of a block of cells"],
];

export function mountAttentionControls(controls: HTMLElement, room: AttentionRoom, signal: AbortSignal): void {
  const { store, limits } = room;
  const long = computed(() => stepOf(store.facts.value?.positions ?? 0, store.facts.value?.positions ?? 0) > 1);
  controls.classList.add("rs-attention-controls");
  const button = (label: string, tip: string, on: boolean, act: () => void): unknown =>
    html`<button type="button" aria-pressed=${on} title=${tip} @click=${act}>${label}</button>`;

  watch(signal, () => {
    const weighting = store.weighting.value;
    const own = store.ownRange.value;
    const diverging = weighting === "contribution";
    const limit = limits.shared(weighting);
    const end = own ? "max" : limit === 0 ? "" : weighting === "pattern" ? "1" : written(weighting, limit);
    const says = own
      ? "Each picture’s colours end at its own largest value"
      : "The colour scale of all pictures on screen";
    render(
      html`<div class="rs-switch" role="group" aria-label="Presentation">
          ${PRESENTATIONS.map(([name, label, tip]) =>
            button(label, tip, store.presentation.value === name, () => (store.presentation.value = name)),
          )}</div>
        <div class="rs-switch" role="group" aria-label="Weighting">
          ${WEIGHTINGS.map((name: Weighting) =>
            button(NAMES[name], meaningOf(name, store), weighting === name, () => (store.weighting.value = name)),
          )}</div>
        ${
          long.value
            ? html`<div class="rs-switch" role="group" aria-label="Down-sampling">
          ${POOLS.map(([pool, label, tip]) =>
            button(label, tip, store.pool.value === pool, () => (store.pool.value = pool)),
          )}</div>`
            : nothing
        }
        <div class="rs-range">
          <div class="rs-switch" role="group"
              aria-label="Colour range">${RANGES.map(([value, label, tip]) =>
                button(label, tip, own === value, () => (store.ownRange.value = value)),
              )}</div>
          <div class="rs-scale" role="img" title=${says}
              aria-label=${`Colour scale: ${NAMES[weighting]} from ${diverging ? `minus ${end}` : "0"} to ${end}`}>
            <span>${diverging ? (end ? `−${end.replace(/^\+/, "")}` : nothing) : "0"}</span><i
                style="background-image:${gradient(
                  weighting,
                  store.theme.value,
                )}"></i><span>${end} <small>${UNITS[weighting]}</small></span></div>
        </div>`,
      controls,
    );
  });
}

// The first line of a card: the head, its contribution, buttons ("pin", "why?", "take out", "enlarge"), and remarks on
// the picture.
import type { ReadonlySignal, Signal } from "@preact/signals-core";
import { html, nothing, render, type TemplateResult } from "lit-html";
import { side, signed } from "../../base/format";
import { legibleSentence } from "../../base/legible";
import { watch } from "../../base/lifetime";
import type { Part, Zoom } from "../../draw/zoom";
import type { Store } from "../../state/store";
import { takeOut } from "../../state/take-out";
import { askWhy } from "../../state/trail";
import { noteChip } from "../../ui/caption";
import { prose } from "../../ui/prose";
import type { Pane } from "./attention-data";
import type { AttentionRoom } from "./attention-room";
import { written } from "./attention-scale";
import { ownDestination, poolWords, strongest } from "./attention-words";
import type { Shown } from "./card-cursor";
import { ZOOM_HINT } from "./card-zoom";

export interface CardState {
  head: ReadonlySignal<string>;
  shown: ReadonlySignal<Shown | null>;
  trouble: ReadonlySignal<string | null>;
  part: ReadonlySignal<Part>;
  /** The finest drawn pane that covers the visible part. */
  pane: ReadonlySignal<Pane | null>;
  /** The largest absolute value of the picture. */
  own: ReadonlySignal<number>;
  zoom: Signal<Zoom | null>;
  large: Signal<boolean>;
}

export function mountCardTitle(title: HTMLElement, room: AttentionRoom, card: CardState, signal: AbortSignal): void {
  const { store } = room;
  watch(signal, () => {
    const name = card.head.value;
    const shown = card.shown.value;
    const value = store.problems.value.has("heads") ? null : store.headValue(name);
    const pinned = store.heads.value.includes(name);
    const large = card.large.value;
    render(
      html`<b class="rs-name">${name}</b>
        ${
          value === null
            ? nothing
            : html`<span
            class="rs-number ${side(signed(value, store.largest.value))}">${signed(value, store.largest.value)}</span>
            ${whose(store)}`
        }
        <button type="button" class="rs-quiet" aria-label="${pinned ? "unpin" : "pin"} ${name}"
            @click=${() => store.togglePin(name)}>${pinned ? "unpin" : "pin"}</button>
        ${why(store, shown, name)}
        ${
          !pinned || store.isSaved.value || (store.against.value?.without ?? []).includes(name)
            ? nothing
            : html`<button type="button" class="rs-quiet rs-card-out" aria-label="take out ${name}"
                title="Compare with a run without ${name}. This runs your model, between cells."
                @click=${() => takeOut(store, [name])}>take out</button>`
        }
        <button type="button" class="rs-quiet rs-enlarge-card" aria-label="enlarge ${name}" aria-pressed=${large}
            title="${large ? "Back to the small size." : "Enlarge to the whole row."} ${ZOOM_HINT}"
          @click=${() => (card.large.value = !large)}>${large ? "⤡" : "⤢"}</button>
        <span class="rs-card-remarks">
          ${
            store.ownRange.value && shown
              ? html`<span class="rs-own"
              title="This picture’s colours end at its own largest value">${ends(shown, card.own.value)}</span>`
              : nothing
          }
          ${pooled(card, store.pool.value)}
          ${zoomed(card)}
        </span>
        ${
          card.trouble.value
            ? html`<span class="rs-trouble"
            title=${legibleSentence(card.trouble.value)}>${prose(card.trouble.value)}</span>`
            : nothing
        }`,
      title,
    );
  });
}

/** What the number in the title is, if the head map shows another one: "direct" or "in A". */
function whose({ effectShown, runs }: Store): TemplateResult | typeof nothing {
  const words = effectShown.value !== "direct" ? "direct" : runs.of("heads") !== null ? "in A" : "";
  return words === "" ? nothing : html`<span class="rs-whose-number">${words}</span>`;
}

/** Mounts a chip with the notes on the picture. Its place is beside the picture, because a title has no room for it. */
export function mountCardNote(
  place: HTMLElement,
  store: Store,
  { head, shown }: Pick<CardState, "head" | "shown">,
  signal: AbortSignal,
): void {
  watch(signal, () => {
    const notes = shown.value?.head === head.value ? shown.value.attention.notes : [];
    render(noteChip(store, notes), place);
  });
}

/** A button that asks about the source that the head reads most at the destination. */
function why(store: Store, shown: Shown | null, name: string): unknown {
  const source = shown?.head === name && shown.attention.reads ? strongest(shown.attention.reads, 1)[0] : undefined;
  if (!shown || source === undefined) return nothing;
  const spot = { head: name, destination: ownDestination(shown.attention, store), source };
  const token = store.tokenName(source);
  return html`<button type="button" class="rs-quiet rs-card-why" aria-label="why? ${name} reads ${token}"
      title="Why does ${name} read ${token}?"
      @click=${() => askWhy(store, spot)}>why?</button>`;
}

function ends({ weighting }: Shown, limit: number): string {
  const end = written(weighting, limit);
  return weighting === "contribution" ? `−${end.slice(1)} … ${end}` : `0 … ${end}`;
}

function pooled({ pane }: CardState, pool: "peak" | "mean"): unknown {
  const words = pane.value ? poolWords(pool, pane.value) : "";
  const tip =
    `Down-sampled: each cell is the ${pool === "peak" ? "value farthest from zero" : "mean"} of a block of ` +
    "cells. Zoom in for single tokens; the sentences and the bars are exact.";
  return words === "" ? nothing : html`<span class="rs-pooled" title=${tip}>${words}</span>`;
}

function zoomed({ part, zoom, shown }: CardState): unknown {
  if (!zoom.value) return nothing;
  const times = (shown.value?.attention.size ?? 0) / part.value.span;
  return html`<button type="button" class="rs-quiet rs-show-all" title=${ZOOM_HINT}
      @click=${() => (zoom.value = null)}>×${times.toFixed(1)} · show all</button>`;
}

// Attention of heads: matrices side by side, the prompt as text, or all heads in small.
import type { Client } from "../client";
import { type AttentionMap, type AttentionPicture, offer } from "../export/pictures";
import { element, watch } from "../lifetime";
import type { Presentation, Store } from "../store";
import { mountAllHeads } from "./all-heads";
import { mountCards } from "./attention-cards";
import { mountAttentionControls } from "./attention-controls";
import { AttentionRoom } from "./attention-room";
import { mountAttentionText } from "./attention-text";
import type { Shown } from "./card-cursor";
import { mountReadAhead } from "./read-ahead";
import type { TextPicture } from "./text-picture";

export function mountAttention(parent: HTMLElement, controls: HTMLElement, store: Store, client: Client, signal: AbortSignal): void {
  const room = new AttentionRoom(store, client);
  const places: Record<Presentation, HTMLElement> = {
    matrix: element("div", "rs-cards"),
    text: element("div", "rs-attention-text"),
    all: element("div", "rs-all-heads"),
  };
  parent.append(...Object.values(places));
  watch(signal, () => {
    for (const [name, place] of Object.entries(places)) place.hidden = store.presentation.value !== name;
  });

  mountAttentionControls(controls, room, signal);
  const cards = mountCards(places.matrix, room, signal);
  const text = mountAttentionText(places.text, room, signal);
  const enlarged = mountAllHeads(places.all, room, signal);
  mountReadAhead(room, room.inSight("matrix", "text", "all"), signal);

  offer(store, "attention", () => {
    const presentation = store.presentation.peek();
    const shown = text();
    if (presentation === "text") return shown ? asPicture(store, shown.weighting, ofText(store, shown)) : null;
    const all = (presentation === "matrix" ? cards() : enlarged()).filter(({ attention, weighting }) => attention.maps[weighting]);
    return all[0] ? asPicture(store, all[0].weighting, all.map((one) => ofCard(store, one))) : null;
  });
}

// --- for exports ------------------------------------------------------------------------------------------------------
function asPicture(store: Store, weighting: AttentionPicture["weighting"], maps: AttentionMap[]): AttentionPicture {
  return { picture: "attention", weighting, maps, ownRange: store.ownRange.peek() };
}

function ofCard(store: Store, { head, attention }: Shown): AttentionMap {
  return { name: head, value: store.headValue(head), size: attention.size, maps: attention.maps, brings: attention.brings };
}

function ofText(store: Store, { name, heads, weighting, size, values, parts }: TextPicture): AttentionMap[] {
  if (parts.length === 1) return parts.map(({ head, attention }) => ofCard(store, { head, attention, weighting }));
  return [{ name, of: heads, value: null, size, maps: { [weighting]: values }, brings: null }];
}

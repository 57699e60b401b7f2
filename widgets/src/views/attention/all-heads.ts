// Thumbnails of all heads, grouped by layer. Next to them is a card with the head that was last under the pointer. If
// there is none, the card has the head that was pinned last.
import { computed, untracked } from "@preact/signals-core";
import { keepFocus } from "../../base/keyboard";
import { child, element, watch } from "../../base/lifetime";
import type { ReadCards } from "./attention-cards";
import type { AttentionRoom } from "./attention-room";
import { type Card, createCard } from "./card";
import { mountThumbnails } from "./thumbnails";

export function mountAllHeads(parent: HTMLElement, room: AttentionRoom, signal: AbortSignal): ReadCards {
  const { store } = room;
  const inSight = room.inSight("all");
  const hint = element(
    "div",
    "rs-card rs-placeholder",
    {},
    element("div", "rs-placeholder-box", {}, element("p", "", {}, "Hover over a head to enlarge it; click to pin it.")),
  );
  const place = element("div", "rs-enlarged-head", { tabindex: "-1" }, hint);
  const box = element("div", "rs-thumbnails", { role: "group", "aria-label": "All heads" });
  parent.append(place, box);

  const enlarged = computed(() => (inSight.value ? (store.preview.value ?? store.heads.value.at(-1) ?? null) : null));
  let card: Card | null = null;
  let end = child(signal);
  watch(signal, () => {
    const head = enlarged.value;
    const visible = inSight.value;
    untracked(() => {
      if (!visible) return; // the card changes only while it is visible
      hint.hidden = head !== null;
      if (head === null) {
        end.abort();
        keepFocus(place, () => card?.node.remove());
        card = null;
      } else if (card) card.head.value = head;
      else {
        end = child(signal);
        card = createCard(head, room, inSight, end.signal);
        place.append(card.node);
      }
    });
  });
  mountThumbnails(box, room, inSight, signal);
  return () => [card?.seen()].flatMap((seen) => seen ?? []);
}

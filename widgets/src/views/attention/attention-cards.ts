// The cards side by side: the pinned heads in pin order, then one preview slot, always last and always of the same
// size.
import { untracked } from "@preact/signals-core";
import { keepFocus } from "../../base/keys";
import { child, element, watch } from "../../base/lifetime";
import type { AttentionRoom } from "./attention-room";
import { type Card, createCard } from "./card";
import type { Seen } from "./card-cursor";
import { mountSlots } from "./card-slots";

interface Held extends Card {
  end: AbortController;
}

/** What the cards show, in their order. */
export type ReadCards = () => Seen[];

export function mountCards(row: HTMLElement, room: AttentionRoom, signal: AbortSignal): ReadCards {
  const { store } = room;
  const inSight = room.inSight("matrix");
  const placeholder = element(
    "div",
    "rs-card rs-placeholder",
    {},
    element(
      "div",
      "rs-placeholder-box",
      {},
      element("p", "", {}, "Hover over a head to see where it looks; click to keep it."),
      element("p", "rs-placeholder-line", {}, "Hover over another head to compare it."),
      element(
        "p",
        "rs-placeholder-more",
        {},
        "Each row is a token that reads, each column one that is read. The bars below say what every source " +
          "brings to the target.",
      ),
    ),
  );
  row.append(placeholder);
  row.tabIndex = -1;
  const lay = mountSlots(row, store, signal);

  const pinned = new Map<string, Held>();
  let preview: Held | null = null;
  let laid: HTMLElement[] = [];

  const create = (head: string): Held => {
    const end = child(signal);
    return { ...createCard(head, room, inSight, end.signal), end };
  };
  const drop = (card: Held): void => {
    card.end.abort();
    card.node.remove();
  };

  watch(signal, () => {
    const heads = store.heads.value;
    const hovered = store.preview.value;
    untracked(() => keepFocus(row, () => arrange(heads, hovered !== null && heads.includes(hovered) ? null : hovered)));
  });

  function arrange(heads: string[], hovered: string | null): void {
    // A pinned preview is kept as it is; an unpinned card may go back to being the preview.
    for (const head of heads) {
      if (pinned.has(head)) continue;
      if (preview?.head.peek() === head) {
        pinned.set(head, preview);
        preview = null;
      } else pinned.set(head, create(head));
    }
    for (const [head, card] of [...pinned]) {
      if (heads.includes(head)) continue;
      pinned.delete(head);
      if (head === hovered && !preview) preview = card;
      else drop(card);
    }
    if (hovered === null) {
      if (preview) drop(preview);
      preview = null;
    } else if (preview) preview.head.value = hovered;
    else preview = create(hovered);

    placeholder.hidden = preview !== null;
    const order = heads.flatMap((head) => pinned.get(head)?.node ?? []);
    if (preview) order.push(preview.node);
    // Moved only when out of place: moving an element would lose its focus.
    order.forEach((node, i) => {
      const at = row.children[i];
      if (at !== node) row.insertBefore(node, at ?? null);
    });
    if (row.lastElementChild !== placeholder) row.append(placeholder);
    const now = [...order, ...(preview ? [] : [placeholder])];
    const same = now.length === laid.length && now.every((node, i) => node === laid[i]);
    laid = now;
    if (!same || heads.includes(store.preview.peek() ?? "")) lay();
  }

  return () =>
    [...store.heads.peek().flatMap((head) => pinned.get(head) ?? []), ...(preview ? [preview] : [])].flatMap(
      (card) => card.seen() ?? [],
    );
}

// The attention cards: first the pinned heads in the order of pinning, then a preview of the head under the pointer.
import { untracked } from "@preact/signals-core";
import { keepFocus } from "../../base/keyboard";
import { child, element, watch } from "../../base/lifetime";
import type { AttentionRoom } from "./attention-room";
import { type Card, createCard } from "./card";
import type { Seen } from "./card-cursor";
import { mountSlots } from "./card-slots";

interface MountedCard extends Card {
  end: AbortController;
}

/** Returns what each card shows, in the order of the cards. */
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
      element("p", "", {}, "Hover over a head to see where it looks; click to pin it."),
      element("p", "rs-placeholder-line", {}, "Hover over another head to compare it."),
      element(
        "p",
        "rs-placeholder-more",
        {},
        "Each row is a token that reads, each column a token that is read. The bars below show what each source " +
          "contributes to the target.",
      ),
    ),
  );
  row.append(placeholder);
  row.tabIndex = -1;
  const layOut = mountSlots(row, store, signal);

  const pinned = new Map<string, MountedCard>();
  let preview: MountedCard | null = null;
  let laid: HTMLElement[] = [];

  const create = (head: string): MountedCard => {
    const end = child(signal);
    return { ...createCard(head, room, inSight, end.signal), end };
  };
  const drop = (card: MountedCard): void => {
    card.end.abort();
    card.node.remove();
  };

  watch(signal, () => {
    const heads = store.heads.value;
    const hovered = store.preview.value;
    untracked(() => keepFocus(row, () => arrange(heads, hovered !== null && heads.includes(hovered) ? null : hovered)));
  });

  function arrange(heads: string[], hovered: string | null): void {
    // When the preview is pinned, its card stays; an unpinned card may become the preview again.
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
    // Cards are moved only if they are out of place, because a moved element loses the focus.
    order.forEach((node, i) => {
      const at = row.children[i];
      if (at !== node) row.insertBefore(node, at ?? null);
    });
    if (row.lastElementChild !== placeholder) row.append(placeholder);
    const now = [...order, ...(preview ? [] : [placeholder])];
    const same = now.length === laid.length && now.every((node, i) => node === laid[i]);
    laid = now;
    if (!same || heads.includes(store.preview.peek() ?? "")) layOut();
  }

  return () =>
    [...store.heads.peek().flatMap((head) => pinned.get(head) ?? []), ...(preview ? [preview] : [])].flatMap(
      (card) => card.seen() ?? [],
    );
}

// The cursor of a matrix and of the bars below it. The pointer or the arrow keys choose a cell. The row and the column
// of the cell are highlighted, and a sentence states its value. All matrices highlight the same row, so that they can
// be compared.
import { batch, type ReadonlySignal, type Signal, signal as state, untracked } from "@preact/signals-core";
import { parseHead } from "../../base/format";
import { element, watch } from "../../base/lifetime";
import type { Sentence } from "../../base/sentence";
import { blockOf } from "../../draw/plane";
import { bringIntoSight, type Part, type Zoom } from "../../draw/zoom";
import type { Weighting } from "../../state/store";
import type { Attention, Pane } from "./attention-data";
import type { AttentionRoom } from "./attention-room";
import { cellNumbers, cellSentence, paneAt } from "./attention-words";

/** The attention of a head that a card shows. */
export interface Shown {
  attention: Attention;
  head: string;
  /** The key of everything the attention depends on (`AttentionStore.key`). */
  key: string;
  weighting: Weighting;
}
/** What a card shows, with the part of the maps that is exported. */
export interface Seen extends Shown {
  pane: Pane;
}
/** Destination q, source k. */
export interface Cell {
  q: number;
  k: number;
}
export interface Places {
  matrix: HTMLCanvasElement;
  overlay: HTMLElement;
  bars: HTMLCanvasElement;
  /** The overlay above the bars. */
  mark: HTMLElement;
}

export function mountCursor(
  { matrix, overlay, bars, mark }: Places,
  room: AttentionRoom,
  shown: ReadonlySignal<Shown | null>,
  panes: ReadonlySignal<Pane[]>,
  part: ReadonlySignal<Part>,
  zoom: Signal<Zoom | null>,
  signal: AbortSignal,
): ReadonlySignal<Cell | null> {
  const { store, pointed } = room;
  const cursor = state<Cell | null>(null);
  let said: Sentence | null = null;
  const destination = element("i", "rs-frame");
  const row = element("i", "rs-lane");
  const column = element("i", "rs-lane");
  const cell = element("i", "rs-frame rs-frame-cell");
  const bar = element("i", "rs-lane");
  // Hidden from screen readers, because the sentence has the same numbers.
  const tip = element("span", "rs-tip rs-cell-tip", { hidden: "", "aria-hidden": "true" });
  overlay.append(row, column, destination, cell);
  overlay.after(tip);
  mark.append(bar);

  const place = (node: HTMLElement, on: boolean, top: number, left: number, rows: number, columns: number): void => {
    const { span } = part.value;
    node.hidden = !on || span === 0 || top + rows <= 0 || left + columns <= 0 || top >= span || left >= span;
    node.style.top = `${(top / span) * 100}%`;
    node.style.left = `${(left / span) * 100}%`;
    node.style.height = `${(rows / span) * 100}%`;
    node.style.width = `${(columns / span) * 100}%`;
  };
  watch(signal, () => {
    const { left, top, span } = part.value;
    const size = shown.value?.attention.size ?? 0;
    const within = (at: number | null): number | null => (at !== null && at < size ? at : null);
    const at = cursor.value;
    const q = within(at?.q ?? room.hovered.value.row);
    const k = within(at?.k ?? room.hovered.value.column);
    const dest = within(store.destination.value);
    place(destination, dest !== null, (dest ?? 0) - top, 0, 1, span);
    place(row, q !== null, (q ?? 0) - top, 0, 1, span);
    place(column, k !== null, 0, (k ?? 0) - left, span, 1);
    const pane = at && paneAt(panes.value, at.q, at.k);
    const block = pane && at && blockOf(pane, at.q, at.k);
    place(
      cell,
      block !== null,
      (block?.rows.start ?? 0) - top,
      (block?.columns.start ?? 0) - left,
      pane?.step ?? 1,
      pane?.step ?? 1,
    );
    place(bar, k !== null, 0, (k ?? 0) - left, span, 1);
  });

  let lit: number | null = null;
  const select = (next: Cell): void =>
    batch(() => {
      cursor.value = next;
      pointed.value = next.q;
      store.hoveredToken.value = next.k;
      store.hoveredLayer.value = lit = parseHead(shown.peek()?.head ?? "")?.layer ?? null;
    });
  watch(signal, () => {
    const at = cursor.value;
    const picture = shown.value;
    const pane = at && paneAt(panes.value, at.q, at.k);
    if (!at || !picture || !pane) return;
    const text = cellSentence(store, picture.attention, pane, picture.weighting, picture.head, at.q, at.k);
    untracked(() => (store.sentence.value = said = text));
  });
  // The tooltip with the numbers of the cell.
  watch(signal, () => {
    const at = cursor.value;
    const picture = shown.value;
    const pane = at && paneAt(panes.value, at.q, at.k);
    const { left, top, span } = part.value;
    const numbers =
      at && picture && pane ? cellNumbers(store, picture.attention, pane, picture.weighting, at.q, at.k) : null;
    tip.hidden = numbers === null || mark.matches(":hover");
    if (!at || numbers === null) return;
    tip.replaceChildren(element("b", "", {}, `${store.tokenName(at.q)} ← ${store.tokenName(at.k)}`), ` ${numbers}`);
    const across = ((at.k - left + 0.5) / span) * 100;
    tip.style.left = `${across}%`;
    tip.style.top = `${((at.q - top) / span) * 100}%`;
    tip.classList.toggle("rs-tip-left", across > 50);
    tip.classList.toggle("rs-tip-below", at.q - top < span * 0.12);
  });
  const leave = (): void => {
    const at = cursor.peek();
    if (at === null) return;
    // When the user scrolls with the keyboard, the pointer can leave after another card has set the sentence and the
    // highlights. What another card has set stays.
    batch(() => {
      cursor.value = null;
      if (pointed.peek() === at.q) pointed.value = null;
      if (store.hoveredToken.peek() === at.k) store.hoveredToken.value = null;
      if (store.hoveredLayer.peek() === lit) store.hoveredLayer.value = null;
      if (store.sentence.peek() === said) store.sentence.value = null;
    });
  };
  signal.addEventListener("abort", leave, { once: true });

  const sizeNow = (): number => shown.peek()?.attention.size ?? 0;
  const clamp = (value: number): number => Math.max(0, Math.min(sizeNow() - 1, value));
  const under = (event: PointerEvent, box: DOMRect): Cell => {
    const { left, top, span } = part.peek();
    const index = (at: number, of: number): number => Math.max(0, Math.min(span - 1, Math.floor((at / of) * span)));
    return {
      q: clamp(top + index(event.clientY - box.top, box.height)),
      k: clamp(left + index(event.clientX - box.left, box.width)),
    };
  };
  const point = (next: Cell): void => {
    const last = cursor.peek();
    if (sizeNow() > 0 && (last?.q !== next.q || last.k !== next.k)) select(next);
  };
  const start = (): number => clamp(store.destination.peek() ?? sizeNow() - 1);
  const go = (next: Cell): void => {
    const now = zoom.peek();
    if (now) zoom.value = bringIntoSight(now, sizeNow(), next.q, next.k);
    select(next);
  };

  matrix.addEventListener("pointermove", (event) => point(under(event, matrix.getBoundingClientRect())), { signal });
  bars.addEventListener(
    "pointermove",
    (event) => point({ ...under(event, bars.getBoundingClientRect()), q: start() }),
    { signal },
  );
  for (const canvas of [matrix, bars]) {
    canvas.addEventListener("pointerleave", leave, { signal });
    canvas.addEventListener("blur", leave, { signal });
  }
  matrix.addEventListener(
    "keydown",
    (event) => {
      if (sizeNow() === 0) return;
      const { q, k } = cursor.peek() ?? { q: start(), k: start() };
      const by = paneAt(panes.peek(), q, k)?.step ?? 1; // one block per key press
      const to = {
        ArrowUp: { q: clamp(q - by), k },
        ArrowDown: { q: clamp(q + by), k },
        ArrowLeft: { q, k: clamp(k - by) },
        ArrowRight: { q, k: clamp(k + by) },
        Home: { q, k: 0 },
        End: { q, k: clamp(q) },
        PageUp: { q: 0, k },
        PageDown: { q: clamp(Infinity), k },
      }[event.key];
      if (!to) return;
      event.preventDefault();
      go(cursor.peek() === null && event.key.startsWith("Arrow") ? { q, k } : to);
    },
    { signal },
  );
  bars.addEventListener(
    "keydown",
    (event) => {
      if (sizeNow() === 0) return;
      const q = start();
      const k = cursor.peek()?.k ?? q;
      const to = { ArrowLeft: clamp(k - 1), ArrowRight: clamp(k + 1), Home: 0, End: q }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      go({ q, k: cursor.peek() === null && event.key.startsWith("Arrow") ? k : to });
    },
    { signal },
  );
  return cursor;
}

// The layout of the cards next to the head map. The area is as high as the map and the ranking, however many heads are
// pinned. A single card uses the whole area. Otherwise there is room for at least two cards, to compare. Cards that do
// not fit are on further pages to the right. The pages are filled in the order of pinning, so several cards stay in
// place when another head is pinned. If there are further pages, the preview covers the last visible place.
// Pointing at a pinned head hides the preview and scrolls to the page of that head.
import { child, later } from "../../base/lifetime";
import type { Store } from "../../state/store";

// Sizes in CSS pixels.
const GAP = { x: 22, y: 16 }; // between cards
/** The smallest width of a card. */
const NARROWEST = 226;
/** The largest and the smallest side of a card's picture. */
const [LARGEST, SMALLEST] = [264, 150];
/** The space that a card needs around its picture. */
const AROUND = { x: 76, y: 150 };
/**
 * The same for a single card, with more room for names (layout.css has their sizes) and a larger picture. In an area
 * below `narrowest`, its title would have several lines and make the panel higher.
 */
const ALONE = { x: 100, y: 166, smallest: 220, largest: 360, narrowest: 400 };
/** A card gets the whole area only after it was alone for this time, so that nothing flickers between two heads. */
const SETTLED_MS = 400;
/** The height of a scroll bar. */
const BAR = 12;
/** If the panel is at least this wide, the cards are next to the map. layout.css has the same number. */
const BESIDE_PX = 560;
/** The height that a card's surroundings need in the window, above and below the card. */
const BEYOND = 240;

interface Slots {
  columns: number;
  rows: number;
  side: number;
}

/** The number of columns and rows of cards that fit, and the side of a picture. At least two cards fit, to compare. */
export function slotsIn(width: number, height: number, free: number): Slots {
  const columns = Math.max(1, Math.floor((width + GAP.x) / (NARROWEST + GAP.x)));
  const room = Math.floor((width - (columns - 1) * GAP.x) / columns) - AROUND.x;
  const most = Math.max(SMALLEST, Math.min(LARGEST, free - BEYOND, room));
  const rows = (side: number): number => Math.max(1, Math.floor((height - BAR + GAP.y) / (side + AROUND.y + GAP.y)));
  if (columns > 1 || rows(most) > 1) return { columns, rows: rows(most), side: most };
  const half = Math.floor((height - BAR - GAP.y) / 2) - AROUND.y;
  return { columns, rows: 2, side: Math.max(SMALLEST, Math.min(most, half)) };
}

/**
 * The layout of a single card; null if it would not be larger than beside others. `above` is the height of the panel
 * above the cards: the whole card should be visible.
 */
export function aloneIn(width: number, height: number, free: number, above: number, others: Slots): Slots | null {
  const side = Math.floor(
    Math.min(ALONE.largest, width - ALONE.x, height - BAR - ALONE.y, Math.max(ALONE.smallest, free - above - ALONE.y)),
  );
  return width >= ALONE.narrowest && side > others.side ? { columns: 1, rows: 1, side } : null;
}

/** The place of the `nth` card: its page (from 0), and its column (counted over all pages) and row (both from 1). */
export function place(
  nth: number,
  { columns, rows }: Pick<Slots, "columns" | "rows">,
): { page: number; column: number; row: number } {
  const [page, at] = [Math.floor(nth / (columns * rows)), nth % (columns * rows)];
  return { page, column: page * columns + (at % columns) + 1, row: Math.floor(at / columns) + 1 };
}

/** Lays out the cards. The returned function lays them out again after cards were added, removed or moved. */
export function mountSlots(row: HTMLElement, store: Store, signal: AbortSignal): () => void {
  const charts = row.closest<HTMLElement>(".rs-charts");
  const panel = row.closest<HTMLElement>(".residscope");
  const beside = [".rs-heads", ".rs-rank"].flatMap((name) => charts?.querySelector<HTMLElement>(name) ?? []);
  let room: { several: Slots; alone: Slots | null } | null = null;
  let slots: Slots | null = null;
  let known = new Set(store.heads.peek());
  let isAlone = true;
  let waiting: AbortController | null = null;

  const measure = (): typeof room => {
    if (row.clientWidth === 0) return room; // while the row is hidden, the layout stays
    if (!panel || panel.clientWidth < BESIDE_PX) return null;
    const style = getComputedStyle(row);
    const bottom = Math.max(...beside.map((node) => node.getBoundingClientRect().bottom));
    const free = parseFloat(style.getPropertyValue("--free")) || window.innerHeight;
    const { top } = row.getBoundingClientRect();
    const [width, height] = [row.clientWidth - parseFloat(style.paddingRight), bottom - top];
    const several = slotsIn(width, height, free);
    return { several, alone: aloneIn(width, height, free, top - panel.getBoundingClientRect().top, several) };
  };

  /** Whether a single card is shown. A card that was just left alone stays small for a moment. */
  const alone = (cards: HTMLElement[]): boolean => {
    const now = cards.filter((card) => !card.classList.contains("rs-placeholder")).length <= 1;
    if (!now || isAlone) {
      waiting?.abort();
      waiting = null;
      isAlone = now;
    } else if (!waiting) {
      waiting = child(signal);
      later(SETTLED_MS, waiting.signal, () => {
        isAlone = true;
        layOut();
      });
    }
    return isAlone;
  };

  const layOut = (): void => {
    const cards = [...row.children].filter((node): node is HTMLElement => node instanceof HTMLElement && !node.hidden);
    const single = alone(cards) ? (room?.alone ?? null) : null;
    slots = row.querySelector(":scope > .rs-large") ? null : (single ?? room?.several ?? null);
    const isSingle = slots !== null && slots === single;
    const pinned = store.heads.peek().length;
    const more = slots !== null && !isSingle && pinned + 1 > slots.columns * slots.rows;
    row.classList.toggle("rs-alone", isSingle);
    row.classList.toggle("rs-slots", slots !== null);
    row.classList.toggle("rs-more", more);
    for (const card of row.children) card.classList.toggle("rs-ahead", more && card === cards[pinned]);
    if (!slots) {
      for (const card of cards) card.style.removeProperty("grid-area");
      return;
    }
    const { columns, rows, side } = slots;
    const ahead = cards[pinned] !== undefined && !cards[pinned].classList.contains("rs-placeholder");
    // One additional empty column, so that the user can scroll a card out from under the preview.
    const all = more ? (place(pinned - 1, slots).page + 1) * columns + (ahead ? 1 : 0) : columns;
    for (const [name, value] of Object.entries({
      columns: all,
      across: columns,
      rows,
      side: `${side}px`,
      line: `${side + (isSingle ? ALONE : AROUND).y}px`,
    }))
      row.style.setProperty(`--slot-${name}`, String(value));
    cards.forEach((card, nth) => {
      if (isSingle) return card.style.removeProperty("grid-area");
      const { column, row: at } = place(nth, { columns, rows });
      // The preview spans all columns of the last row, so that it stays visible wherever the user scrolls to.
      card.style.gridArea = more && nth === pinned ? `${rows} / 1 / auto / -1` : `${at} / ${column}`;
    });
  };

  /** Scrolls to the head that was just pinned, or else to the pinned head under the pointer. */
  const reveal = (): void => {
    const heads = store.heads.peek();
    const fresh = heads.findLastIndex((head) => !known.has(head));
    known = new Set(heads);
    const nth = fresh === -1 ? heads.indexOf(store.preview.peek() ?? "") : fresh;
    if (nth === -1 || !slots || !row.classList.contains("rs-more")) return;
    row.scrollLeft =
      place(nth, slots).page * (row.clientWidth - parseFloat(getComputedStyle(row).paddingRight) + GAP.x);
  };

  // Sizes are measured only when they change, because measuring forces the browser to compute the layout.
  const observer = new ResizeObserver(() => {
    room = measure();
    layOut();
  });
  const above = panel?.querySelectorAll(".rs-header, .rs-sight") ?? [];
  for (const node of [row, ...beside, ...above]) observer.observe(node);
  signal.addEventListener("abort", () => observer.disconnect(), { once: true });
  return () => {
    layOut();
    reveal();
  };
}

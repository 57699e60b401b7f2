// The layout of the cards next to the head map. The area is as high as the map and the ranking, however many heads are
// pinned. Cards that do not fit are on further pages to the right. The pages are filled in the order of pinning, so no
// card moves when another head is pinned. If there are further pages, the preview covers the last visible place.
// Pointing at a pinned head hides the preview and scrolls to the page of that head.
import type { Store } from "../../state/store";

// Sizes in CSS pixels.
const GAP = { x: 22, y: 16 }; // between cards
/** The smallest width of a card. */
const NARROWEST = 226;
/** The largest and the smallest side of a card's picture. */
const [LARGEST, SMALLEST] = [264, 150];
/** The space that a card needs around its picture. */
const AROUND = { x: 76, y: 150 };
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
  let room: Slots | null = null;
  let slots: Slots | null = null;
  let known = new Set(store.heads.peek());

  const measure = (): Slots | null => {
    if (row.clientWidth === 0) return room; // while the row is hidden, the layout stays
    if (!panel || panel.clientWidth < BESIDE_PX) return null;
    const style = getComputedStyle(row);
    const bottom = Math.max(...beside.map((node) => node.getBoundingClientRect().bottom));
    const free = parseFloat(style.getPropertyValue("--free")) || window.innerHeight;
    return slotsIn(row.clientWidth - parseFloat(style.paddingRight), bottom - row.getBoundingClientRect().top, free);
  };

  const layOut = (): void => {
    slots = row.querySelector(":scope > .rs-large") ? null : room;
    const cards = [...row.children].filter((node): node is HTMLElement => node instanceof HTMLElement && !node.hidden);
    const pinned = store.heads.peek().length;
    const more = slots !== null && pinned + 1 > slots.columns * slots.rows;
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
      line: `${side + AROUND.y}px`,
    }))
      row.style.setProperty(`--slot-${name}`, String(value));
    cards.forEach((card, nth) => {
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
  for (const node of [row, ...beside]) observer.observe(node);
  signal.addEventListener("abort", () => observer.disconnect(), { once: true });
  return () => {
    layOut();
    reveal();
  };
}

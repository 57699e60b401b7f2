// The room of the cards where they stand beside the map: as high as what stands there, however many heads are pinned.
// What fits is seen at once. More stand in pages to the right, each filled as the first is, so that a card stays where
// it is. The preview then lies over the last place in view; pointing at a pinned head takes it away, and brings that
// head's page.
import type { Store } from "../../state/store";

/** CSS pixels: between cards, the least of a card's width and picture, what stands around the picture, a scroll bar. */
const GAP = { x: 22, y: 16 };
const NARROWEST = 226;
const [LARGEST, SMALLEST] = [264, 150];
const AROUND = { x: 76, y: 150 };
const BAR = 12;
/** From this width of the panel on the cards stand beside the map; the styles know the same. */
const BESIDE_PX = 560;
/** Of the window what stands above and below a card in it. */
const BEYOND = 240;

interface Slots {
  columns: number;
  rows: number;
  side: number;
}

/** As many cards as fit, and how large each is: two at least, since heads are compared. */
export function slotsIn(width: number, height: number, free: number): Slots {
  const columns = Math.max(1, Math.floor((width + GAP.x) / (NARROWEST + GAP.x)));
  const room = Math.floor((width - (columns - 1) * GAP.x) / columns) - AROUND.x;
  const most = Math.max(SMALLEST, Math.min(LARGEST, free - BEYOND, room));
  const rows = (side: number): number => Math.max(1, Math.floor((height - BAR + GAP.y) / (side + AROUND.y + GAP.y)));
  if (columns > 1 || rows(most) > 1) return { columns, rows: rows(most), side: most };
  const half = Math.floor((height - BAR - GAP.y) / 2) - AROUND.y;
  return { columns, rows: 2, side: Math.max(SMALLEST, Math.min(most, half)) };
}

/** Where the `nth` card stands, page after page: its page, and column and row in all of them, counted from 1. */
export function place(
  nth: number,
  { columns, rows }: Pick<Slots, "columns" | "rows">,
): { page: number; column: number; row: number } {
  const [page, at] = [Math.floor(nth / (columns * rows)), nth % (columns * rows)];
  return { page, column: page * columns + (at % columns) + 1, row: Math.floor(at / columns) + 1 };
}

/** Lays the cards out, and again when it is called: others stand there, or in another order. */
export function mountSlots(row: HTMLElement, store: Store, signal: AbortSignal): () => void {
  const charts = row.closest<HTMLElement>(".rs-charts");
  const panel = row.closest<HTMLElement>(".residscope");
  const beside = [".rs-heads", ".rs-rank"].flatMap((name) => charts?.querySelector<HTMLElement>(name) ?? []);
  let room: Slots | null = null;
  let slots: Slots | null = null;
  let known = new Set(store.heads.peek());

  const measure = (): Slots | null => {
    if (row.clientWidth === 0) return room; // not in sight: as it was
    if (!panel || panel.clientWidth < BESIDE_PX) return null;
    const style = getComputedStyle(row);
    const bottom = Math.max(...beside.map((node) => node.getBoundingClientRect().bottom));
    const free = parseFloat(style.getPropertyValue("--free")) || window.innerHeight;
    return slotsIn(row.clientWidth - parseFloat(style.paddingRight), bottom - row.getBoundingClientRect().top, free);
  };

  const lay = (): void => {
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
    // One column more than is filled: what the preview covers can be moved out from beneath it.
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
      // The preview is in view wherever the row is moved to: it may be anywhere in its line.
      card.style.gridArea = more && nth === pinned ? `${rows} / 1 / auto / -1` : `${at} / ${column}`;
    });
  };

  /** A head that was pinned just now, or is pointed at, is to be seen. */
  const reveal = (): void => {
    const heads = store.heads.peek();
    const fresh = heads.findLastIndex((head) => !known.has(head));
    known = new Set(heads);
    const nth = fresh === -1 ? heads.indexOf(store.preview.peek() ?? "") : fresh;
    if (nth === -1 || !slots || !row.classList.contains("rs-more")) return;
    row.scrollLeft =
      place(nth, slots).page * (row.clientWidth - parseFloat(getComputedStyle(row).paddingRight) + GAP.x);
  };

  // Measured when sizes change, and not with each card: to ask for a size makes the browser lay everything out at once.
  const observer = new ResizeObserver(() => {
    room = measure();
    lay();
  });
  for (const node of [row, ...beside]) observer.observe(node);
  signal.addEventListener("abort", () => observer.disconnect(), { once: true });
  return () => {
    lay();
    reveal();
  };
}

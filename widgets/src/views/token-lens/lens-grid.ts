// The grid of the token lens: a row for each point of the stream, a column for each position. The grid scrolls
// in both directions. Only the visible cells are elements of the page. The pointer or an arrow key makes a cell active.
import { computed, type ReadonlySignal, type Signal, signal as state } from "@preact/signals-core";
import { html, nothing, render, type TemplateResult } from "lit-html";
import { element, watch } from "../../base/lifetime";
import type { Run } from "../../state/comparison";
import type { Store } from "../../state/store";
import { selectPosition } from "../../state/trail";
import { stepAcross } from "../../ui/roving";
import { scrollToShow } from "../../ui/scroll";
import { measured } from "../../ui/width";
import { contentsOf } from "./lens-runs";
import type { LensTiles, VisibleCells } from "./lens-tiles";

export interface CellPlace {
  row: number;
  column: number;
}
export interface Lens {
  tiles: LensTiles;
  points: ReadonlySignal<string[]>;
  positions: ReadonlySignal<number>;
  inSight: ReadonlySignal<boolean>;
  cursor: Signal<CellPlace | null>;
  /** Which run the cells show, or the difference. */
  run: ReadonlySignal<Run>;
  /** The end of the colour scale of differences. */
  limit: ReadonlySignal<number>;
}

// Sizes in CSS pixels: the height and the width of a cell, the width of the row names, the height of the tokens above.
const ROW_HEIGHT = 22;
const [MIN_WIDTH, USUAL_WIDTH, MAX_WIDTH] = [52, 64, 108];
const NAMES_WIDTH = 76;
const HEADER_HEIGHT = 24;
/** At most this many rows are visible. */
const MAX_ROWS = 16;
/** The number of grids that were created so far. It makes their ids unique. */
let grids = 0;

export function mountLensGrid(
  parent: HTMLElement,
  store: Store,
  lens: Lens,
  signal: AbortSignal,
): ReadonlySignal<VisibleCells> {
  const id = `rs-lens-${++grids}`;
  const { points, positions, cursor } = lens;
  const sheet = element("div", "rs-lens-sheet");
  const scroller = element("div", "rs-lens-scroll", { role: "grid", tabindex: "0", "aria-label": "Token lens" }, sheet);
  parent.append(scroller);

  const width = measured(scroller, 640, signal);
  const columnWidth = computed(() => {
    const available = width.value - NAMES_WIDTH;
    const forAll = Math.floor(available / Math.max(1, positions.value));
    if (forAll >= MIN_WIDTH) return Math.min(MAX_WIDTH, forAll);
    return Math.floor(available / Math.max(1, Math.floor(available / USUAL_WIDTH))); // only whole columns are visible
  });
  /** The height of the visible rows, without scroll bars. */
  const viewHeight = computed(() => Math.min(MAX_ROWS, Math.max(1, points.value.length)) * ROW_HEIGHT);
  watch(signal, () => {
    const height = HEADER_HEIGHT + viewHeight.value;
    void [width.value, columnWidth.value, positions.value];
    if (!lens.inSight.value) return;
    scroller.style.height = `${height}px`;
    queueMicrotask(
      () => !signal.aborted && (scroller.style.height = `${height + scroller.offsetHeight - scroller.clientHeight}px`),
    );
  });
  /** The scroll position, and the shape of its grid. A grid of a new shape shows no cells until it is scrolled. */
  const scrolled = state({ shape: "", top: 0, left: 0 });
  const shape = computed(() => `${points.value.length} ${positions.value}`);
  const visibleCells = computed<VisibleCells>((): VisibleCells => {
    const current = scrolled.value;
    if (current.shape !== shape.value) return { rows: [0, 0], columns: [0, 0] };
    const clamp = (value: number, count: number): number => Math.max(0, Math.min(count, value));
    const first = (from: number, size: number, count: number): number => clamp(Math.floor(from / size), count);
    return {
      rows: [
        first(current.top, ROW_HEIGHT, points.value.length),
        clamp(Math.ceil((current.top + viewHeight.value) / ROW_HEIGHT), points.value.length),
      ],
      columns: [
        first(current.left, columnWidth.value, positions.value),
        clamp(Math.ceil((current.left + width.value - NAMES_WIDTH) / columnWidth.value), positions.value),
      ],
    };
  });
  const key = computed(() => JSON.stringify(visibleCells.value));

  const scroll = (top: number, left: number): void => {
    const limited = (value: number, most: number): number => Math.max(0, Math.min(value, most));
    const to = {
      shape: shape.peek(),
      top: limited(top, points.peek().length * ROW_HEIGHT - viewHeight.peek()),
      left: limited(left, positions.peek() * columnWidth.peek() + NAMES_WIDTH - width.peek()),
    };
    scrolled.value = to;
    scroller.scrollTop = to.top;
    scroller.scrollLeft = to.left;
  };
  scroller.addEventListener(
    "scroll",
    () => {
      if (lens.inSight.peek() && scroller.clientHeight > 0)
        scrolled.value = { shape: shape.peek(), top: scroller.scrollTop, left: scroller.scrollLeft };
    },
    { signal },
  );
  // At first the grid is scrolled to the deepest points. It is scrolled to the destination's column when the
  // destination, the prompt or the width changes.
  watch(signal, () => {
    void [shape.value, width.value, columnWidth.value, store.prompt.value, store.dataKey.value];
    const column = store.destination.value ?? positions.value - 1;
    if (!lens.inSight.value || points.value.length === 0 || positions.value === 0) return;
    queueMicrotask(() => {
      if (signal.aborted) return;
      const current = scrolled.peek(); // kept here, because a hidden box loses its scroll position
      const [top, left] =
        current.shape === shape.peek() ? [current.top, current.left] : [points.peek().length * ROW_HEIGHT, 0];
      scroll(top, leftFor(column, left));
    });
  });

  watch(signal, () => {
    void key.value;
    const { rows, columns } = visibleCells.peek();
    void lens.tiles.version.value;
    const theme = store.theme.value;
    const [run, limit] = [lens.run.value, lens.limit.value];
    const current = cursor.value;
    const names = points.value;
    const destination = store.destination.value;
    const hovered = current?.column ?? store.hoveredToken.value;
    const x = columnWidth.value;
    const height = names.length * ROW_HEIGHT;
    const mapRange = <T>([from, to]: [number, number], make: (i: number) => T): T[] =>
      Array.from({ length: Math.max(0, to - from) }, (_, i) => make(from + i));

    sheet.style.width = `${NAMES_WIDTH + positions.value * x}px`;
    sheet.style.height = `${HEADER_HEIGHT + height}px`;
    scroller.setAttribute("aria-rowcount", String(names.length + 1));
    scroller.setAttribute("aria-colcount", String(positions.value + 1));
    if (current) scroller.setAttribute("aria-activedescendant", `${id}-${current.row}-${current.column}`);
    else scroller.removeAttribute("aria-activedescendant");

    const cell = (row: number, column: number): TemplateResult => {
      const loaded = lens.tiles.cell(names, row, column);
      const isActive = current?.row === row && current.column === column;
      const place = `left:${NAMES_WIDTH + column * x}px;width:${x}px`;
      const contents = loaded
        ? contentsOf(loaded, run, limit, theme)
        : { style: "", text: "", name: "loading", rank: null, differs: false };
      const classes = [
        isActive ? "rs-on" : "",
        loaded?.isCurrent === false ? "rs-old" : "",
        contents.rank === 1 ? "rs-first" : "",
        contents.differs ? "rs-differs" : "",
      ].join(" ");
      return html`<div role="gridcell" id="${id}-${row}-${column}" aria-colindex=${column + 2} aria-selected=${isActive}
          aria-label=${contents.name}
        class="rs-lens-cell ${classes}" data-row=${row} data-column=${column} data-rank=${contents.rank ?? nothing}
        style="${place};${contents.style}"><span dir="auto">${contents.text}</span></div>`;
    };
    render(
      html`<div role="row" aria-rowindex="1" class="rs-lens-head" style="height:${HEADER_HEIGHT}px">
          <div role="columnheader" class="rs-lens-corner" style="width:${NAMES_WIDTH}px">point ↓</div>
          ${mapRange(
            columns,
            (column) => html`<div role="columnheader" aria-colindex=${column + 2} dir="auto" title="position ${column}"
                style="left:${NAMES_WIDTH + column * x}px;width:${x}px"
            class="${column === destination ? "rs-marked" : ""} ${column === hovered ? "rs-lit" : ""} ${
              store.tokens.value[column]?.padding ? "rs-padding" : ""
            }"><span>${store.tokenName(column)}</span></div>`,
          )}
        </div>
        ${mapRange(
          rows,
          (row) => html`<div role="row" aria-rowindex=${row + 2} class="rs-lens-row"
              style="top:${HEADER_HEIGHT + row * ROW_HEIGHT}px;height:${ROW_HEIGHT}px">
          <div role="rowheader" class="rs-lens-name ${row === current?.row ? "rs-lit" : ""}"
              style="width:${NAMES_WIDTH}px">${names[row]}</div>
          ${mapRange(columns, (column) => cell(row, column))}</div>`,
        )}
        ${
          destination === null
            ? nothing
            : html`<i class="rs-lens-destination"
            style="left:${NAMES_WIDTH + destination * x}px;width:${x}px;top:${HEADER_HEIGHT}px;height:${height}px"></i>`
        }`,
      sheet,
    );
  });

  // Moves the cursor.
  const cellAt = (event: Event): CellPlace | null => {
    const node = event.target instanceof Element ? event.target.closest<HTMLElement>("[data-row]") : null;
    return node ? { row: Number(node.dataset["row"]), column: Number(node.dataset["column"]) } : null;
  };
  sheet.addEventListener("pointerover", (event) => (cursor.value = cellAt(event)), { signal });
  scroller.addEventListener("pointerleave", () => (cursor.value = null), { signal });
  scroller.addEventListener("blur", () => (cursor.value = null), { signal });
  sheet.addEventListener(
    "click",
    (event) => {
      const cell = cellAt(event);
      if (cell) selectPosition(store, cell.column);
    },
    { signal },
  );
  scroller.addEventListener(
    "keydown",
    (event) => {
      const [rows, columns] = [points.peek().length, positions.peek()];
      if (rows === 0) return;
      const current = cursor.peek();
      const { row, column } = current ?? {
        row: rows - 1,
        column: Math.min(columns - 1, store.destination.peek() ?? columns - 1),
      };
      const page = Math.floor(viewHeight.peek() / ROW_HEIGHT);
      const to = stepAcross(event, { row, column }, rows, columns, page);
      if (to) {
        const next = current ? to : { row, column };
        cursor.value = next;
        reveal(next);
      } else if ((event.key === "Enter" || event.key === " ") && current) selectPosition(store, current.column);
      else return;
      event.preventDefault();
    },
    { signal },
  );

  function reveal({ row, column }: CellPlace): void {
    const { top, left } = scrolled.peek();
    scroll(scrollToShow(row * ROW_HEIGHT, (row + 1) * ROW_HEIGHT, top, viewHeight.peek()), leftFor(column, left));
  }
  /** The horizontal scroll position nearest to `left` that shows a column. */
  function leftFor(column: number, left: number): number {
    return scrollToShow(
      column * columnWidth.peek(),
      (column + 1) * columnWidth.peek(),
      left,
      width.peek() - NAMES_WIDTH,
    );
  }
  return visibleCells;
}

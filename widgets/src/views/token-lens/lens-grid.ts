// The grid of the token lens: a row for each point of the stream, a column for each position. It scrolls both ways in
// its own box, and only visible cells are in the page. One cell is active; the arrow keys move it.
import { computed, type ReadonlySignal, type Signal, signal as state } from "@preact/signals-core";
import { html, nothing, render, type TemplateResult } from "lit-html";
import { visible } from "../../base/format";
import { element, watch } from "../../base/lifetime";
import { css, sequentialRgb } from "../../draw/colours";
import { inkOn } from "../../draw/ink";
import type { Store } from "../../state/store";
import { stepAcross } from "../../ui/roving";
import { scrollToShow } from "../../ui/scroll";
import { measured } from "../../ui/width";
import type { LensCell } from "../../wire/protocol.gen";
import type { LensTiles, Window } from "./lens-tiles";
import { hasRank, probability } from "./lens-words";

export interface At {
  row: number;
  column: number;
}
export interface Lens {
  tiles: LensTiles;
  points: ReadonlySignal<string[]>;
  positions: ReadonlySignal<number>;
  inSight: ReadonlySignal<boolean>;
  cursor: Signal<At | null>;
}

/** Sizes in CSS pixels: a cell, the row names, the tokens above; and the most visible rows. */
const TALL = 22;
const [NARROWEST, USUAL, WIDEST] = [52, 64, 108];
const NAMES = 76;
const HEAD = 24;
const ROWS = 16;
/** The answer's rank is shown in a cell up to this number. */
export const MARKED = 10;
let grids = 0;

export function mountLensGrid(
  parent: HTMLElement,
  store: Store,
  lens: Lens,
  signal: AbortSignal,
): ReadonlySignal<Window> {
  const id = `rs-lens-${++grids}`;
  const { points, positions, cursor } = lens;
  const sheet = element("div", "rs-lens-sheet");
  const scroller = element("div", "rs-lens-scroll", { role: "grid", tabindex: "0", "aria-label": "Token lens" }, sheet);
  parent.append(scroller);

  const width = measured(scroller, 640, signal);
  const wide = computed(() => {
    const room = width.value - NAMES;
    const fitting = Math.floor(room / Math.max(1, positions.value));
    if (fitting >= NARROWEST) return Math.min(WIDEST, fitting);
    return Math.floor(room / Math.max(1, Math.floor(room / USUAL))); // so that only whole columns are visible
  });
  /** The height of the visible rows: all of them, but at most ROWS; scroll bars are added to it. */
  const view = computed(() => Math.min(ROWS, Math.max(1, points.value.length)) * TALL);
  watch(signal, () => {
    const tall = HEAD + view.value;
    void [width.value, wide.value, positions.value];
    if (!lens.inSight.value) return;
    scroller.style.height = `${tall}px`;
    queueMicrotask(
      () => !signal.aborted && (scroller.style.height = `${tall + scroller.offsetHeight - scroller.clientHeight}px`),
    );
  });
  /** The scroll position, and the shape it belongs to: before a shape is first shown, nothing is in view. */
  const scrolled = state({ shape: "", top: 0, left: 0 });
  const shape = computed(() => `${points.value.length} ${positions.value}`);
  const window = computed<Window>((): Window => {
    const at = scrolled.value;
    if (at.shape !== shape.value) return { rows: [0, 0], columns: [0, 0] };
    const clamp = (value: number, count: number): number => Math.max(0, Math.min(count, value));
    const first = (from: number, size: number, count: number): number => clamp(Math.floor(from / size), count);
    return {
      rows: [
        first(at.top, TALL, points.value.length),
        clamp(Math.ceil((at.top + view.value) / TALL), points.value.length),
      ],
      columns: [
        first(at.left, wide.value, positions.value),
        clamp(Math.ceil((at.left + width.value - NAMES) / wide.value), positions.value),
      ],
    };
  });
  const key = computed(() => JSON.stringify(window.value));

  const scroll = (top: number, left: number): void => {
    const within = (value: number, most: number): number => Math.max(0, Math.min(value, most));
    const to = {
      shape: shape.peek(),
      top: within(top, points.peek().length * TALL - view.peek()),
      left: within(left, positions.peek() * wide.peek() + NAMES - width.peek()),
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
  // At first the grid is scrolled to the deepest points. The destination's column stays visible when the destination,
  // the prompt or the width changes.
  watch(signal, () => {
    void [shape.value, width.value, wide.value, store.prompt.value, store.source.value];
    const read = store.destination.value ?? positions.value - 1;
    if (!lens.inSight.value || points.value.length === 0 || positions.value === 0) return;
    queueMicrotask(() => {
      if (signal.aborted) return;
      const at = scrolled.peek(); // a hidden box loses its own scroll position
      const [top, left] = at.shape === shape.peek() ? [at.top, at.left] : [points.peek().length * TALL, 0];
      scroll(top, beside(read, left));
    });
  });

  watch(signal, () => {
    void key.value;
    const { rows, columns } = window.peek();
    void lens.tiles.version.value;
    const theme = store.theme.value;
    const at = cursor.value;
    const names = points.value;
    const destination = store.destination.value;
    const hovered = at?.column ?? store.hoveredToken.value;
    const x = wide.value;
    const each = <T>([from, to]: [number, number], body: (i: number) => T): T[] =>
      Array.from({ length: Math.max(0, to - from) }, (_, i) => body(from + i));

    sheet.style.width = `${NAMES + positions.value * x}px`;
    sheet.style.height = `${HEAD + names.length * TALL}px`;
    scroller.setAttribute("aria-rowcount", String(names.length + 1));
    scroller.setAttribute("aria-colcount", String(positions.value + 1));
    if (at) scroller.setAttribute("aria-activedescendant", `${id}-${at.row}-${at.column}`);
    else scroller.removeAttribute("aria-activedescendant");

    const cell = (row: number, column: number): TemplateResult => {
      const found = lens.tiles.cell(names, row, column);
      const on = at?.row === row && at.column === column;
      const place = `left:${NAMES + column * x}px;width:${x}px`;
      const attributes = found ? look(found.cell, theme) : { style: "", text: "", name: "loading", rank: null };
      return html`<div role="gridcell" id="${id}-${row}-${column}" aria-colindex=${column + 2} aria-selected=${on}
          aria-label=${attributes.name}
        class="rs-lens-cell ${on ? "rs-on" : ""} ${found?.fresh === false ? "rs-old" : ""} ${
          attributes.rank === 1 ? "rs-first" : ""
        }" data-row=${row} data-column=${column} data-rank=${attributes.rank ?? nothing}
        style="${place};${attributes.style}"><span dir="auto">${attributes.text}</span></div>`;
    };
    render(
      html`<div role="row" aria-rowindex="1" class="rs-lens-head" style="height:${HEAD}px">
          <div role="columnheader" class="rs-lens-corner" style="width:${NAMES}px">point ↓</div>
          ${each(
            columns,
            (column) => html`<div role="columnheader" aria-colindex=${column + 2} dir="auto" title="position ${column}"
                style="left:${NAMES + column * x}px;width:${x}px"
            class="${column === destination ? "rs-marked" : ""} ${column === hovered ? "rs-lit" : ""} ${
              store.tokens.value[column]?.padding ? "rs-padding" : ""
            }"><span>${store.tokenName(column)}</span></div>`,
          )}
        </div>
        ${each(
          rows,
          (row) => html`<div role="row" aria-rowindex=${row + 2} class="rs-lens-row"
              style="top:${HEAD + row * TALL}px;height:${TALL}px">
          <div role="rowheader" class="rs-lens-name ${row === at?.row ? "rs-lit" : ""}"
              style="width:${NAMES}px">${names[row]}</div>
          ${each(columns, (column) => cell(row, column))}</div>`,
        )}
        ${
          destination === null
            ? nothing
            : html`<i class="rs-lens-destination"
            style="left:${NAMES + destination * x}px;width:${x}px;top:${HEAD}px;height:${names.length * TALL}px"></i>`
        }`,
      sheet,
    );
  });

  // The cursor.
  const under = (event: Event): At | null => {
    const node = event.target instanceof Element ? event.target.closest<HTMLElement>("[data-row]") : null;
    return node ? { row: Number(node.dataset["row"]), column: Number(node.dataset["column"]) } : null;
  };
  sheet.addEventListener("pointerover", (event) => (cursor.value = under(event)), { signal });
  scroller.addEventListener("pointerleave", () => (cursor.value = null), { signal });
  scroller.addEventListener("blur", () => (cursor.value = null), { signal });
  sheet.addEventListener(
    "click",
    (event) => {
      const at = under(event);
      if (at) store.togglePosition(at.column);
    },
    { signal },
  );
  scroller.addEventListener(
    "keydown",
    (event) => {
      const [rows, columns] = [points.peek().length, positions.peek()];
      if (rows === 0) return;
      const at = cursor.peek();
      const { row, column } = at ?? {
        row: rows - 1,
        column: Math.min(columns - 1, store.destination.peek() ?? columns - 1),
      };
      const page = Math.floor(view.peek() / TALL);
      const to = stepAcross(event, { row, column }, rows, columns, page);
      if (to) {
        const next = at ? to : { row, column };
        cursor.value = next;
        reveal(next);
      } else if ((event.key === "Enter" || event.key === " ") && at) store.togglePosition(at.column);
      else return;
      event.preventDefault();
    },
    { signal },
  );

  function reveal({ row, column }: At): void {
    const { top, left } = scrolled.peek();
    scroll(scrollToShow(row * TALL, (row + 1) * TALL, top, view.peek()), beside(column, left));
  }
  /** The horizontal scroll position that shows a column. */
  function beside(column: number, left: number): number {
    return scrollToShow(column * wide.peek(), (column + 1) * wide.peek(), left, width.peek() - NAMES);
  }
  return window;
}

function look(
  cell: LensCell,
  theme: Store["theme"]["value"],
): { style: string; text: string; name: string; rank: number | null } {
  const [top = "", p = NaN] = [cell.tokens[0], cell.probabilities[0]];
  const colour = sequentialRgb(p, theme);
  const ranked = hasRank(cell) ? `, answer rank ${cell.rank}` : "";
  return {
    style: `background-color:${css(colour)};color:${inkOn(colour)}`,
    text: visible(top),
    name: `${visible(top)} ${probability(p)}${ranked}`,
    rank: hasRank(cell) && cell.rank <= MARKED ? cell.rank : null,
  };
}

// The sheet of the position map. At the top are the tokens, below them bars for the model's own values, then a row for
// each component. The sheet scrolls in its box. The user chooses a cell with the pointer or the arrow keys.
import { computed, type ReadonlySignal, signal as state, untracked } from "@preact/signals-core";
import { html, render } from "lit-html";
import { signed } from "../../base/format";
import { element, watch } from "../../base/lifetime";
import { isBeyond } from "../../draw/clipped";
import { css, divergingRgb } from "../../draw/colours";
import { paintColumns, paintGrid } from "../../draw/heatmap";
import type { Store } from "../../state/store";
import { selectPosition } from "../../state/trail";
import { scrollToShow } from "../../ui/scroll";
import { measured } from "../../ui/width";
import { type Component, componentsOf } from "../../wire/components";
import { columnLabels, rowLabels } from "./position-labels";
import type { PositionPicture } from "./position-picture";
import { positionSentence } from "./position-words";

// Sizes in CSS pixels: all rows together, their names, the tokens above them, and the bars of the model's own values.
const ROWS_HEIGHT = 340;
const NAMES_WIDTH = { wide: 88, narrow: 58 };
const TOKENS_HEIGHT = 62;
const BARS_HEIGHT = 30;
/** A slanted token extends this far beyond its column. */
const OVERHANG = 34;
/** The row number of the model's own values, which are above the first row. */
export const OWN_ROW = -1;

export interface Place {
  row: number;
  column: number;
}

export function mountPositionMap(
  parent: HTMLElement,
  store: Store,
  picture: ReadonlySignal<PositionPicture | null>,
  signal: AbortSignal,
): void {
  const tokens = element("div", "rs-sheet-tokens", { "aria-hidden": "true" });
  const own = element("canvas", "rs-sheet-own", { "aria-hidden": "true" });
  const names = element("div", "rs-sheet-names");
  const canvas = element("canvas", "", { "aria-hidden": "true" });
  const overlay = element("div", "rs-overlay");
  const field = element(
    "div",
    "rs-sheet-field",
    { tabindex: "0", role: "application", "aria-roledescription": "map of components and positions" },
    canvas,
    overlay,
  );
  const ownLabel = element("div", "rs-sheet-own-label", { "aria-hidden": "true" });
  const sheet = element("div", "rs-sheet", {}, element("div", "rs-sheet-corner"), tokens, ownLabel, own, names, field);
  const scroller = element("div", "rs-sheet-scroll", {}, sheet);
  scroller.style.height = `${TOKENS_HEIGHT + BARS_HEIGHT + ROWS_HEIGHT + 18}px`;
  parent.append(scroller);

  /** 1 if each position has its own target: then a column belongs to the token after its position. Otherwise 0. */
  const each = (): 0 | 1 => (store.asksEach.value ? 1 : 0);
  const hoveredColumn = (): number | null => {
    const token = store.hoveredToken.value;
    return token === null || token < each() ? null : token - each();
  };
  const rowAt = (row: number): Component | undefined => componentsOf(picture.peek()?.reply.components)[row];
  const cursor = state<Place | null>(null);
  const width = measured(scroller, 640, signal);
  const size = computed(() => {
    const { reply } = picture.value ?? {};
    const [rows, columns] = [reply?.components.kind.length ?? 0, reply?.positions ?? 0];
    const isNarrow = width.value < 480;
    const left = isNarrow ? NAMES_WIDTH.narrow : NAMES_WIDTH.wide;
    const widest = Math.floor((width.value - left - OVERHANG) / Math.max(1, columns));
    const cellWidth = Math.max(Math.min(7, 8000 / Math.max(1, columns)), Math.min(68, widest));
    const cellHeight = Math.max(5, Math.min(28, Math.floor((2 * ROWS_HEIGHT) / Math.max(1, rows)) / 2));
    return { rows, columns, cellWidth, cellHeight, left, isNarrow };
  });

  watch(signal, () => {
    const shown = picture.value;
    if (!shown) return;
    const theme = store.theme.value;
    const { rows, columns, cellWidth, cellHeight } = size.value;
    paintGrid(
      canvas,
      { rows, columns, values: shown.values },
      cellWidth,
      cellHeight,
      (value) => divergingRgb(value, shown.limit, theme),
      (value) => isBeyond(value, { low: -shown.limit, high: shown.limit }),
    );
    const line = theme === "dark" ? "#4a5158" : "#cfd2d2";
    paintColumns(
      own,
      shown.own,
      cellWidth,
      BARS_HEIGHT - 6,
      (value) => css(divergingRgb(Math.sign(value) * 0.72, 1, theme)),
      line,
    );
    field.setAttribute(
      "aria-label",
      `${rows} components at ${columns} positions. Arrow keys read the cells, Enter selects the ` +
        `position${shown.reply.by === "head" ? ", Space pins a head" : ""}.`,
    );
  });

  watch(signal, () => {
    const { cellWidth, cellHeight, left, isNarrow } = size.value;
    const active = cursor.value;
    const shown = picture.value;
    const tallest = (shown?.own ?? new Float32Array(0)).reduce(
      (most, value) => (Math.abs(value) > Math.abs(most) ? value : most),
      0,
    );
    sheet.style.gridTemplate = `${TOKENS_HEIGHT}px ${BARS_HEIGHT}px auto / ${left}px auto`;
    render(
      html`${isNarrow ? "own" : "model’s own"}<br>${shown && !isNarrow ? "tallest " : ""}${
        shown ? signed(tallest, tallest, -1) : ""
      }`,
      ownLabel,
    );
    ownLabel.title =
      `The model’s own ${store.quantity.value} at each position; the tallest bar is ` + `${signed(tallest, tallest)}.`;
    render(columnLabels(store, size.value.columns, cellWidth, active?.column ?? hoveredColumn(), each()), tokens);
    render(html`${rowLabels(shown?.reply ?? null, cellHeight, active?.row ?? null, isNarrow, store)}`, names);
  });

  // Highlights of the row, the column, the cell and the destination.
  const highlights = {
    row: element("i", "rs-lane"),
    column: element("i", "rs-lane"),
    cell: element("i", "rs-frame rs-frame-cell"),
    destination: element("i", "rs-frame"),
  };
  const tip = element("span", "rs-tip", { hidden: "" });
  overlay.append(highlights.row, highlights.column, highlights.destination, highlights.cell, tip);
  const place = (node: HTMLElement, isShown: boolean, left: number, top: number, w: number, h: number): void => {
    node.hidden = !isShown;
    Object.assign(node.style, { left: `${left}px`, top: `${top}px`, width: `${w}px`, height: `${h}px` });
  };
  watch(signal, () => {
    const { rows, columns, cellWidth, cellHeight } = size.value;
    const active = cursor.value;
    const column = active?.column ?? hoveredColumn() ?? columns;
    const destination = store.destination.value ?? columns;
    place(
      highlights.row,
      active !== null && active.row >= 0,
      0,
      (active?.row ?? 0) * cellHeight,
      columns * cellWidth,
      cellHeight,
    );
    place(highlights.column, column < columns, column * cellWidth, 0, cellWidth, rows * cellHeight);
    place(
      highlights.cell,
      active !== null && active.row >= 0,
      (active?.column ?? 0) * cellWidth,
      (active?.row ?? 0) * cellHeight,
      cellWidth,
      cellHeight,
    );
    place(highlights.destination, destination < columns, destination * cellWidth, 0, cellWidth, rows * cellHeight);
  });
  // The tooltip has the value of the cell, because a value beyond the colour scale cannot be seen from the colour.
  watch(signal, () => {
    const active = cursor.value;
    const shown = picture.value;
    tip.hidden = !active || active.row < 0 || !shown;
    if (!active || active.row < 0 || !shown) return;
    const { columns, cellWidth, cellHeight, left } = size.value;
    const value = shown.values[active.row * columns + active.column] ?? NaN;
    tip.replaceChildren(
      element("b", "", {}, rowAt(active.row)?.label ?? ""),
      ` ${signed(value, shown.limit)}${
        isBeyond(value, { low: -shown.limit, high: shown.limit }) ? ", beyond the colours" : ""
      }`,
    );
    // The tooltip stays inside the visible part of the sheet, so that it is not cut off.
    const { scrollLeft, scrollTop, clientWidth, clientHeight } = scroller;
    const from = Math.min(
      (active.column + 0.5) * cellWidth - tip.offsetWidth / 2,
      scrollLeft + clientWidth - left - tip.offsetWidth,
      columns * cellWidth - tip.offsetWidth,
    );
    const isInUpperHalf =
      (active.row + 0.5) * cellHeight - scrollTop < (clientHeight - TOKENS_HEIGHT - BARS_HEIGHT) / 2;
    tip.style.left = `${Math.max(scrollLeft, from)}px`;
    const top = isInUpperHalf ? (active.row + 1) * cellHeight + 4 : active.row * cellHeight - tip.offsetHeight - 4;
    tip.style.top = `${top}px`;
  });

  // Moves the cursor.
  const select = (next: Place | null): void => {
    const last = cursor.peek();
    if (last?.row === next?.row && last?.column === next?.column) return;
    cursor.value = next;
    const row = next && rowAt(next.row);
    store.hoveredToken.value = next === null ? null : next.column + each();
    store.hover(row?.kind === "head" ? row.label : null);
    store.hoveredLayer.value = row?.layer ?? null;
    if (!next) store.sentence.value = null;
  };
  watch(signal, () => {
    const active = cursor.value;
    const shown = picture.value;
    if (!active || !shown) return;
    const sentence = positionSentence(store, shown, active);
    untracked(() => (store.sentence.value = sentence));
  });
  signal.addEventListener("abort", () => cursor.peek() && select(null), { once: true });

  const cellAt = (event: MouseEvent): Place | null => {
    const box = field.getBoundingClientRect();
    const { rows, columns, cellWidth, cellHeight } = size.peek();
    const clamp = (value: number, last: number): number => Math.max(0, Math.min(last, Math.floor(value)));
    if (rows === 0 || columns === 0) return null;
    return {
      row: event.target === own ? OWN_ROW : clamp((event.clientY - box.top) / cellHeight, rows - 1),
      column: clamp((event.clientX - box.left) / cellWidth, columns - 1),
    };
  };
  for (const node of [field, own] as HTMLElement[]) {
    node.addEventListener("pointermove", (event) => select(cellAt(event)), { signal });
    node.addEventListener("pointerleave", () => select(null), { signal });
    node.addEventListener(
      "click",
      (event) => {
        const cell = cellAt(event);
        if (cell) selectPosition(store, cell.column);
      },
      { signal },
    );
  }
  field.addEventListener("blur", () => select(null), { signal });
  field.addEventListener(
    "keydown",
    (event) => {
      const { rows, columns } = size.peek();
      if (rows === 0) return;
      const active = cursor.peek();
      const from = active ?? { row: 0, column: Math.min(columns - 1, store.destination.peek() ?? columns - 1) };
      const row = rowAt(from.row);
      const to: Partial<Record<string, Place>> = {
        ArrowUp: { ...from, row: Math.max(OWN_ROW, from.row - 1) },
        ArrowDown: { ...from, row: Math.min(rows - 1, from.row + 1) },
        ArrowLeft: { ...from, column: Math.max(0, from.column - 1) },
        ArrowRight: { ...from, column: Math.min(columns - 1, from.column + 1) },
        Home: { ...from, column: 0 },
        End: { ...from, column: columns - 1 },
        PageUp: { ...from, row: 0 },
        PageDown: { ...from, row: rows - 1 },
      };
      const next = to[event.key];
      if (next) {
        select(active ? next : from);
        reveal(active ? next : from);
      } else if (event.key === "Enter" && active) selectPosition(store, active.column);
      else if (event.key === " " && active && row?.kind === "head") store.togglePin(row.label);
      else return;
      event.preventDefault();
    },
    { signal },
  );
  names.addEventListener(
    "click",
    (event) => {
      const head =
        event.target instanceof Element ? event.target.closest<HTMLElement>("[data-head]")?.dataset["head"] : undefined;
      if (head) store.togglePin(head);
    },
    { signal },
  );
  names.addEventListener(
    "pointerover",
    (event) => {
      const row =
        event.target instanceof Element ? event.target.closest<HTMLElement>("[data-head]")?.dataset["head"] : undefined;
      store.hover(row ?? null);
    },
    { signal },
  );
  names.addEventListener("pointerleave", () => store.hover(null), { signal });

  // Scrolls to the destination's column when the tab opens, and when the destination, the prompt or the width
  // changes.
  watch(signal, () => {
    const { columns } = size.value;
    void [width.value, store.prompt.value, store.dataKey.value];
    const column = store.destination.value ?? columns - 1;
    if (store.tab.value !== "positions" || columns === 0) return;
    queueMicrotask(() => !signal.aborted && scrollToColumn(column));
  });
  function scrollToColumn(column: number): void {
    const { cellWidth, left } = size.peek();
    scroller.scrollLeft = scrollToShow(
      column * cellWidth,
      (column + 1) * cellWidth + OVERHANG,
      scroller.scrollLeft,
      scroller.clientWidth - left,
    );
  }
  /** Scrolls the sheet to a cell; the page does not move. */
  function reveal({ row, column }: Place): void {
    const { cellHeight } = size.peek();
    scrollToColumn(column);
    scroller.scrollTop = scrollToShow(
      Math.max(0, row) * cellHeight,
      (row + 1) * cellHeight,
      scroller.scrollTop,
      scroller.clientHeight - TOKENS_HEIGHT - BARS_HEIGHT,
    );
  }
}

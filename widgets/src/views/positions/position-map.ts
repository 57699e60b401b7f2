// The sheet of the position map: tokens at the top, below them the model's own values as bars, then a row for each
// component. It scrolls in its own box; the pointer or the arrow keys choose a cell.
import { computed, type ReadonlySignal, signal as state, untracked } from "@preact/signals-core";
import { html, render } from "lit-html";
import { signed } from "../../base/format";
import { element, watch } from "../../base/lifetime";
import { isBeyond } from "../../draw/clipped";
import { css, divergingRgb } from "../../draw/colours";
import { paintColumns, paintGrid } from "../../draw/heatmap";
import type { Store } from "../../state/store";
import { scrollToShow } from "../../ui/scroll";
import { measured } from "../../ui/width";
import { type Component, componentsOf } from "../../wire/components";
import { columnLabels, rowLabels } from "./position-labels";
import type { PositionPicture } from "./position-picture";
import { positionSentence } from "./position-words";

/** Sizes in CSS pixels: all rows together, their names, the tokens above, and the bars of the model's own values. */
const ROWS = 340;
const NAMES = { wide: 88, narrow: 58 };
const TOKENS = 62;
const OWN = 30;
/** How far a slanted token extends beyond its column. */
const LEAN = 34;
/** The row of the model's own values, above the first row. */
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
  scroller.style.height = `${TOKENS + OWN + ROWS + 18}px`;
  parent.append(scroller);

  const rowAt = (row: number): Component | undefined => componentsOf(picture.peek()?.reply.components)[row];
  const cursor = state<Place | null>(null);
  const width = measured(scroller, 640, signal);
  const size = computed(() => {
    const { reply } = picture.value ?? {};
    const [rows, columns] = [reply?.components.kind.length ?? 0, reply?.positions ?? 0];
    const narrow = width.value < 480;
    const left = narrow ? NAMES.narrow : NAMES.wide;
    const fitting = Math.floor((width.value - left - LEAN) / Math.max(1, columns));
    const x = Math.max(Math.min(7, 8000 / Math.max(1, columns)), Math.min(68, fitting));
    const y = Math.max(5, Math.min(28, Math.floor((2 * ROWS) / Math.max(1, rows)) / 2));
    return { rows, columns, x, y, left, narrow };
  });

  watch(signal, () => {
    const shown = picture.value;
    if (!shown) return;
    const theme = store.theme.value;
    const { rows, columns, x, y } = size.value;
    paintGrid(
      canvas,
      { rows, columns, values: shown.values },
      x,
      y,
      (value) => divergingRgb(value, shown.limit, theme),
      (value) => isBeyond(value, { low: -shown.limit, high: shown.limit }),
    );
    const line = theme === "dark" ? "#4a5158" : "#cfd2d2";
    paintColumns(own, shown.own, x, OWN - 6, (value) => css(divergingRgb(Math.sign(value) * 0.72, 1, theme)), line);
    field.setAttribute(
      "aria-label",
      `${rows} components at ${columns} positions. Arrow keys read the cells, Enter reads the model at a ` +
        `position${shown.reply.by === "head" ? ", Space pins a head" : ""}.`,
    );
  });

  watch(signal, () => {
    const { x, y, left, narrow } = size.value;
    const at = cursor.value;
    const shown = picture.value;
    const tallest = (shown?.own ?? new Float32Array(0)).reduce(
      (most, value) => (Math.abs(value) > Math.abs(most) ? value : most),
      0,
    );
    sheet.style.gridTemplate = `${TOKENS}px ${OWN}px auto / ${left}px auto`;
    render(
      html`${narrow ? "own" : "model’s own"}<br>${shown && !narrow ? "tallest " : ""}${
        shown ? signed(tallest, tallest, -1) : ""
      }`,
      ownLabel,
    );
    ownLabel.title =
      `The model’s own ${store.quantity.value} at each position; the tallest bar is ` + `${signed(tallest, tallest)}.`;
    render(columnLabels(store, size.value.columns, x, at?.column ?? store.hoveredToken.value), tokens);
    render(html`${rowLabels(shown?.reply ?? null, y, at?.row ?? null, narrow, store)}`, names);
  });

  // Highlights of the row, the column, the cell and the destination.
  const lit = {
    row: element("i", "rs-lane"),
    column: element("i", "rs-lane"),
    cell: element("i", "rs-frame rs-frame-cell"),
    destination: element("i", "rs-frame"),
  };
  const tip = element("span", "rs-tip", { hidden: "" });
  overlay.append(lit.row, lit.column, lit.destination, lit.cell, tip);
  const place = (node: HTMLElement, on: boolean, left: number, top: number, w: number, h: number): void => {
    node.hidden = !on;
    Object.assign(node.style, { left: `${left}px`, top: `${top}px`, width: `${w}px`, height: `${h}px` });
  };
  watch(signal, () => {
    const { rows, columns, x, y } = size.value;
    const at = cursor.value;
    const column = at?.column ?? store.hoveredToken.value ?? columns;
    const destination = store.destination.value ?? columns;
    place(lit.row, at !== null && at.row >= 0, 0, (at?.row ?? 0) * y, columns * x, y);
    place(lit.column, column < columns, column * x, 0, x, rows * y);
    place(lit.cell, at !== null && at.row >= 0, (at?.column ?? 0) * x, (at?.row ?? 0) * y, x, y);
    place(lit.destination, destination < columns, destination * x, 0, x, rows * y);
  });
  // A tooltip with the value of the cell, which its clipped colour may not show.
  watch(signal, () => {
    const at = cursor.value;
    const shown = picture.value;
    tip.hidden = !at || at.row < 0 || !shown;
    if (!at || at.row < 0 || !shown) return;
    const { columns, x, y, left } = size.value;
    const value = shown.values[at.row * columns + at.column] ?? NaN;
    tip.replaceChildren(
      element("b", "", {}, rowAt(at.row)?.label ?? ""),
      ` ${signed(value, shown.limit)}${
        isBeyond(value, { low: -shown.limit, high: shown.limit }) ? ", beyond the colours" : ""
      }`,
    );
    // Placed inside the visible part of the sheet, so that it is not cut off.
    const { scrollLeft, scrollTop, clientWidth, clientHeight } = scroller;
    const from = Math.min(
      (at.column + 0.5) * x - tip.offsetWidth / 2,
      scrollLeft + clientWidth - left - tip.offsetWidth,
      columns * x - tip.offsetWidth,
    );
    const upper = (at.row + 0.5) * y - scrollTop < (clientHeight - TOKENS - OWN) / 2;
    tip.style.left = `${Math.max(scrollLeft, from)}px`;
    tip.style.top = `${upper ? (at.row + 1) * y + 4 : at.row * y - tip.offsetHeight - 4}px`;
  });

  // The cursor.
  const select = (next: Place | null): void => {
    const last = cursor.peek();
    if (last?.row === next?.row && last?.column === next?.column) return;
    cursor.value = next;
    const row = next && rowAt(next.row);
    store.hoveredToken.value = next?.column ?? null;
    store.hover(row?.kind === "head" ? row.label : null);
    store.hoveredLayer.value = row?.layer ?? null;
    if (!next) store.sentence.value = null;
  };
  watch(signal, () => {
    const at = cursor.value;
    const shown = picture.value;
    if (!at || !shown) return;
    const sentence = positionSentence(store, shown, at);
    untracked(() => (store.sentence.value = sentence));
  });
  signal.addEventListener("abort", () => cursor.peek() && select(null), { once: true });

  const under = (event: MouseEvent): Place | null => {
    const box = field.getBoundingClientRect();
    const { rows, columns, x, y } = size.peek();
    const clamp = (value: number, last: number): number => Math.max(0, Math.min(last, Math.floor(value)));
    if (rows === 0 || columns === 0) return null;
    return {
      row: event.target === own ? OWN_ROW : clamp((event.clientY - box.top) / y, rows - 1),
      column: clamp((event.clientX - box.left) / x, columns - 1),
    };
  };
  for (const node of [field, own] as HTMLElement[]) {
    node.addEventListener("pointermove", (event) => select(under(event)), { signal });
    node.addEventListener("pointerleave", () => select(null), { signal });
    node.addEventListener(
      "click",
      (event) => {
        const at = under(event);
        if (at) store.togglePosition(at.column);
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
      const at = cursor.peek();
      const from = at ?? { row: 0, column: Math.min(columns - 1, store.destination.peek() ?? columns - 1) };
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
        select(at ? next : from);
        reveal(at ? next : from);
      } else if (event.key === "Enter" && at) store.togglePosition(at.column);
      else if (event.key === " " && at && row?.kind === "head") store.togglePin(row.label);
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

  // The destination's column stays visible when the tab opens, and when the destination, the prompt or the width
  // changes.
  watch(signal, () => {
    const { columns } = size.value;
    void [width.value, store.prompt.value, store.source.value];
    const column = store.destination.value ?? columns - 1;
    if (store.tab.value !== "positions" || columns === 0) return;
    queueMicrotask(() => !signal.aborted && show(column));
  });
  function show(column: number): void {
    const { x, left } = size.peek();
    scroller.scrollLeft = scrollToShow(
      column * x,
      (column + 1) * x + LEAN,
      scroller.scrollLeft,
      scroller.clientWidth - left,
    );
  }
  /** Scrolls the sheet, never the page. */
  function reveal({ row, column }: Place): void {
    const { y } = size.peek();
    show(column);
    scroller.scrollTop = scrollToShow(
      Math.max(0, row) * y,
      (row + 1) * y,
      scroller.scrollTop,
      scroller.clientHeight - TOKENS - OWN,
    );
  }
}

// The map segment × segment of a head: a row for each segment that reads, a column for each that is read. The last row
// is a mean over all positions after the segment of the column.
import { computed, type ReadonlySignal, signal as state } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import { plural, quoted } from "../../base/format";
import { element, watch } from "../../base/lifetime";
import type { Sentence } from "../../base/sentence";
import { css, limitOf } from "../../draw/colours";
import { inkOn } from "../../draw/ink";
import type { Store } from "../../state/store";
import { type Cell, stepAcross, TabStop } from "../../ui/roving";
import { measured } from "../../ui/width";
import type { SegmentLabel } from "../../wire/protocol.gen";
import { colourOf, decimals, written, writtenShort } from "../attention/attention-scale";
import { extent, segmentName } from "../strip/segment-chips";
import type { SegmentCell, SegmentMap } from "./segment-data";

/** With more segments than this the numbers have no room. */
const MOST_WRITTEN = 7;
// Sizes in CSS pixels: the width of the row names, the height of all rows of a large map, and the width of the ranked
// heads beside the map.
const NAMES = { wide: 100, narrow: 82 };
const ROWS_HEIGHT = 310;
const BESIDE = 165;
/** Narrower cells have no numbers. */
const LEAST_WRITTEN = 28;

/** The value of a cell; NaN if no token of its row can read the segment of its column. */
export function valueAt({ segments, values, later }: SegmentMap, { destination, source }: SegmentCell): number {
  if (destination === null) return later[source] ?? NaN;
  const value = values[destination * segments.length + source] ?? NaN;
  return value === 0 && source > destination ? NaN : value;
}

/** The limit of the colours: of the map, and of its last row. */
export function limits({ weighting, values, later }: SegmentMap): { map: number; later: number } {
  return weighting === "pattern" ? { map: 1, later: 1 } : { map: limitOf(values), later: limitOf(later) };
}

export function mountSegmentGrid(
  parent: HTMLElement,
  store: Store,
  map: ReadonlySignal<SegmentMap | null>,
  chosen: ReadonlySignal<SegmentCell | null>,
  choose: (cell: SegmentCell) => void,
  signal: AbortSignal,
): void {
  const grid = element("div", "rs-segment-grid", { role: "grid", "aria-label": "Segments that read, and are read" });
  const scroller = element("div", "rs-sheet-scroll", {}, grid);
  parent.append(scroller);
  const room = measured(parent.parentElement ?? parent, 500, signal);
  const tabStop = new TabStop();
  const cursor = state<SegmentCell | null>(null);
  const nameOf = (at: number): string => segmentName(map.peek()?.segments[at] ?? { name: "", start: 0, end: 0 });

  watch(signal, () => {
    const shown = map.value;
    if (!shown) return render(nothing, grid);
    const { segments, weighting } = shown;
    const theme = store.theme.value;
    const limit = limits(shown);
    const count = segments.length;
    const isNarrow = room.value < 420;
    const names = isNarrow ? NAMES.narrow : NAMES.wide;
    const free = (room.value - names - (isNarrow ? 4 : BESIDE)) / count;
    const dense = count > MOST_WRITTEN || free < LEAST_WRITTEN;
    const side = dense ? Math.max(4, Math.min(20, Math.floor(free * 2) / 2)) : Math.min(34, Math.floor(free));
    const tall = dense ? Math.max(6, Math.min(18, Math.floor(ROWS_HEIGHT / count))) : 22;
    // Only every nth column has room for its number, and only every nth row for its name.
    const [everyColumn, everyRow] = [Math.ceil(13 / side), Math.ceil(12 / tall)];
    grid.style.cssText = `--across:${count};--cell-side:${side}px;--cell-tall:${tall}px;--names:${names}px`;
    grid.classList.toggle("rs-dense", dense);
    const at = chosen.value;
    const cell = (destination: number | null, source: number) => {
      const value = valueAt(shown, { destination, source });
      const most = destination === null ? limit.later : limit.map;
      const isKnown = Number.isFinite(value);
      const colour = colourOf(weighting, value, most, theme);
      const who = destination === null ? "all later positions read" : `${nameOf(destination)} reads`;
      const digits = Math.min(3, decimals(most) + (weighting === "pattern" ? 1 : 0));
      return html`<div role="gridcell" class="rs-segment-cell${isKnown ? "" : " rs-never"}" tabindex="-1"
        data-cell="${destination ?? "later"} ${source}" data-value=${isKnown ? value.toFixed(5) : nothing}
        aria-selected=${at !== null && at.destination === destination && at.source === source}
        aria-label="${who} ${nameOf(source)}: ${isKnown ? written(weighting, value, most) : "not possible"}"
        style=${isKnown ? `background:${css(colour)};color:${inkOn(colour)}` : nothing}
        >${isKnown && !dense ? writtenShort(weighting, value, digits) : nothing}</div>`;
    };
    const every = segments.map((_, nth) => nth);
    const row = (destination: number | null, label: unknown, tip: string) => html`<div role="row"
        class="rs-segment-row${destination === null ? " rs-later" : ""}"><span role="rowheader" title=${tip}
        data-row=${destination ?? "later"}>${label}</span>${every.map((source) => cell(destination, source))}</div>`;
    const tip = (segment: SegmentLabel): string => `${segmentName(segment)}: ${extent(segment)}`;
    const columnHeader = (segment: SegmentLabel, nth: number) => {
      const isNumbered = nth % everyColumn === 0 && (count - nth) * side >= 12;
      return html`<span role="columnheader" data-column=${nth} title="${nth} ${tip(segment)}"
        aria-label="${nth} ${segmentName(segment)}">${isNumbered ? nth : nothing}</span>`;
    };
    const numbered = (nth: number, segment: SegmentLabel) =>
      nth % everyRow === 0 ? html`<b>${nth}</b> ${segmentName(segment)}` : nothing;
    render(
      html`<div role="row" class="rs-segment-row"><span role="columnheader"
          class="rs-segment-corner">reads ↓ is read →</span>${segments.map(columnHeader)}</div>
        ${segments.map((segment, nth) => row(nth, numbered(nth, segment), tip(segment)))}
        ${row(null, "all later", "The mean over all positions after the segment that is read")}`,
      grid,
    );
    tabStop.move(grid.querySelector('[aria-selected="true"]') ?? grid.querySelector(".rs-segment-cell"));
  });

  const cellOf = (event: Event): SegmentCell | null => {
    const node = event.target instanceof Element ? event.target.closest<HTMLElement>("[data-cell]") : null;
    const [destination, source] = (node?.dataset["cell"] ?? "").split(" ");
    if (!node || destination === undefined || source === undefined) return null;
    return { destination: destination === "later" ? null : Number(destination), source: Number(source) };
  };
  const words = computed((): Sentence | null => {
    const at = cursor.value;
    const shown = map.value;
    if (!at || !shown) return null;
    const { segments, weighting, head } = shown;
    const value = valueAt(shown, at);
    const source = segments[at.source];
    const destination = at.destination === null ? null : segments[at.destination];
    if (!source || destination === undefined) return null;
    const who = destination === null ? "all later positions read" : `${quoted(segmentName(destination))} reads`;
    const start = `${head}: ${who} ${quoted(segmentName(source))}`;
    if (!Number.isFinite(value))
      return [`${start}: not possible, because nothing there comes after ${quoted(segmentName(source))}`];
    const limit = limits(shown);
    const number = written(weighting, value, destination === null ? limit.later : limit.map);
    const size = plural((destination ?? source).end - (destination ?? source).start, "token");
    const how =
      destination === null
        ? "on average over these positions"
        : weighting === "contribution"
          ? `in sum over its ${size}`
          : `on average over its ${size}`;
    return [`${start} `, { stress: number }, ` ${how} · click to rank the heads`];
  });
  let had = false;
  watch(signal, () => {
    const sentence = words.value;
    if (sentence === null && !had) return;
    had = sentence !== null;
    store.sentence.value = sentence;
  });
  watch(signal, () => {
    const at = cursor.value;
    void map.value;
    for (const node of grid.querySelectorAll(".rs-lit")) node.classList.remove("rs-lit");
    if (!at) return;
    grid.querySelector(`[data-row="${at.destination ?? "later"}"]`)?.classList.add("rs-lit");
    grid.querySelector(`[data-column="${at.source}"]`)?.classList.add("rs-lit");
  });
  const ask = (at: SegmentCell | null): void => {
    const shown = map.peek();
    if (at && shown && Number.isFinite(valueAt(shown, at))) choose(at);
  };
  grid.addEventListener("pointerover", (event) => (cursor.value = cellOf(event)), { signal });
  grid.addEventListener("pointerleave", () => (cursor.value = null), { signal });
  grid.addEventListener(
    "focusin",
    (event) => {
      cursor.value = cellOf(event);
      if (event.target instanceof Element) tabStop.move(event.target);
    },
    { signal },
  );
  grid.addEventListener("focusout", () => (cursor.value = null), { signal });
  grid.addEventListener("click", (event) => ask(cellOf(event)), { signal });
  grid.addEventListener(
    "keydown",
    (event) => {
      const at = cellOf(event);
      const count = map.peek()?.segments.length ?? 0;
      if (!at || event.altKey || event.metaKey) return;
      const isEntered = event.key === "Enter" || event.key === " ";
      const from: Cell = { row: at.destination ?? count, column: at.source };
      const to = isEntered ? null : stepAcross(event, from, count + 1, count);
      if (isEntered) ask(at);
      else if (to) {
        const name = `${to.row === count ? "later" : to.row} ${to.column}`;
        grid.querySelector<HTMLElement>(`[data-cell="${name}"]`)?.focus();
      } else return;
      event.preventDefault();
    },
    { signal },
  );
}

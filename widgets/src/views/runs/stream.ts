// The picture of activation patching: the stream before a layer, at a position, is replaced. If the stream of the
// compared run replaces it, the value is the change of the target. If zero or the mean replaces it, the value is minus
// the change: what the stream adds. Estimates are hatched; measured values are solid. Positions after the destination
// have no effect on the target, so their cells stay empty.
import { batch, computed, type ReadonlySignal, signal as state } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import { signed } from "../../base/format";
import { element, watch } from "../../base/lifetime";
import { divergingGradient, divergingRgb, limitOf } from "../../draw/colours";
import { paintGrid } from "../../draw/heatmap";
import { type ReadPicture, shownAs } from "../../export/pictures";
import { layerTicks } from "../../state/axis";
import { type Found, isEstimated, valuesOf } from "../../state/effects";
import { measure } from "../../state/measuring";
import { effects } from "../../state/questions";
import type { Store } from "../../state/store";
import { isSet } from "../../state/target";
import { selectPosition } from "../../state/trail";
import { mountCaption, mountTrouble } from "../../ui/caption";
import { stepAcross } from "../../ui/roving";
import { measured } from "../../ui/width";
import type { Client } from "../../wire/client";
import { measuredWords, replayed } from "../heads/effects";
import { columnLabels } from "../positions/position-labels";
import { STREAM } from "./stream-export";

const TOKENS_HEIGHT = 62;
const NAMES_WIDTH = 26;
/** A slanted token extends this far beyond its column. */
const OVERHANG = 34;
const ROWS_HEIGHT = 330;

const ESTIMATED = "hatched: estimated";
const CAUTION = " An estimate can have the wrong size or sign.";

function isHatched(found: Found | null, index: number): boolean {
  return found !== null && isEstimated(found, "total", index);
}

interface Cell {
  row: number;
  column: number;
}

export function mountStream(
  parent: HTMLElement,
  store: Store,
  client: Client,
  inSight: ReadonlySignal<boolean>,
  signal: AbortSignal,
): ReadPicture {
  const { stream } = store.effects;
  const isHidden = (): boolean => parent.checkVisibility?.() === false;
  const question = () => (inSight.value && isSet(store.target.value) ? effects(store.shown, "stream") : null);
  measure(stream, store, client, { question, isEnough: () => false, isHidden }, signal);

  const caption = element("div", "rs-caption");
  const status = element("div", "rs-effects rs-stream-state");
  const trouble = element("p", "rs-view-trouble", { role: "note" });
  const tokens = element("div", "rs-sheet-tokens", { "aria-hidden": "true" });
  const names = element("div", "rs-sheet-names", { "aria-hidden": "true" });
  const canvas = element("canvas", "", { "aria-hidden": "true" });
  const overlay = element("div", "rs-overlay");
  const field = element(
    "div",
    "rs-sheet-field",
    { tabindex: "0", role: "application", "aria-roledescription": "map of layers and positions" },
    canvas,
    overlay,
  );
  const sheet = element("div", "rs-sheet", {}, element("div", "rs-sheet-corner"), tokens, names, field);
  const scroller = element("div", "rs-sheet-scroll rs-stream", {}, sheet);
  parent.append(caption, status, element("div", "rs-chart-place", {}, scroller, trouble));

  const cell = state<Cell | null>(null);
  const width = measured(scroller, 640, signal);
  const found = computed<Found | null>(() => stream.found.value);
  const values = computed(() => found.value && valuesOf(found.value, "total"));
  const limit = computed(() => stream.reach("total", limitOf(values.value ?? [])));
  const hatched = computed(() => values.value?.some((value, i) => isHatched(found.value, i) && !Number.isNaN(value)));
  const size = computed(() => {
    const { layers: rows = 0, positions: columns = 0 } = store.facts.value ?? {};
    const widest = Math.floor((width.value - NAMES_WIDTH - OVERHANG) / Math.max(1, columns));
    const cellWidth = Math.max(Math.min(7, 8000 / Math.max(1, columns)), Math.min(40, widest));
    const cellHeight = Math.max(5, Math.min(22, Math.floor((2 * ROWS_HEIGHT) / Math.max(1, rows)) / 2));
    return { rows, columns, cellWidth, cellHeight };
  });
  /** Whether the stream of B is put in. Then values are changes of the target. */
  const isPutIn = computed(() => effects(store.shown, "stream").replaced_by === "other");
  /** The effect in a cell, in words: "adds +1.830", "changes it by +1.830", "adds about +1.8 (estimate)". */
  const words = ({ row, column }: Cell): string => {
    const index = row * size.value.columns + column;
    const value = values.value?.[index] ?? NaN;
    if (column > (store.destination.value ?? Infinity)) return "after the destination";
    if (!found.value || Number.isNaN(value)) return "not measured";
    const verb = found.value.isPutIn ? "changes the target by" : "adds";
    return isEstimated(found.value, "total", index)
      ? `${verb} about ${signed(value, limit.value, -1)} (estimate)`
      : `${verb} ${signed(value, limit.value, 1)}`;
  };

  mountTrouble(trouble, scroller, signal, () => stream.refusal.value);
  mountCaption(caption, store, signal, () => {
    const quantity = store.quantity.value;
    const by = found.value?.reply.replaced_by || store.replacedBy.value;
    const what = isPutIn.value
      ? `How the ${quantity} of A changes if the stream of B replaces that of A before a layer ↓ at a position →.`
      : `What the stream before a layer ↓ at a position → adds to the ${quantity}, compared with ${by} in its place.`;
    return { words: what + (hatched.value ? CAUTION : ""), notes: found.value?.reply.notes ?? [] };
  });
  watch(signal, () => {
    if (!inSight.value) return render(nothing, status);
    const ends = signed(limit.value, limit.value);
    const scale = divergingGradient(store.theme.value);
    render(
      html`<p class="rs-effects-state" role=${stream.isMeasuring.value ? nothing : "status"}>${measuredWords(
        stream,
        store.isSaved.value,
      )}${hatched.value ? html`<span class="rs-effects-values">${ESTIMATED}</span>` : nothing}</p>
        <div class="rs-effects-row">${replayed(found.value?.reply.replayed ?? "", store.isSaved.value)}
          ${
            limit.value > 0
              ? html`<span class="rs-stream-scale" aria-hidden="true">${ends.replace("+", "−")}<i
                  style="background-image:${scale.replace("to top", "to right")}"></i>${ends}</span>`
              : nothing
          }</div>`,
      status,
    );
  });

  watch(signal, () => {
    if (!inSight.value) return render(nothing, names);
    const { rows, columns, cellWidth, cellHeight } = size.value;
    const [known, shown, theme, most] = [found.value, values.value, store.theme.value, limit.value];
    const destination = store.destination.value ?? columns - 1;
    const drawn = new Float32Array(rows * columns).map((_, i) =>
      i % columns > destination ? NaN : (shown?.[i] ?? NaN),
    );
    sheet.style.gridTemplate = `${TOKENS_HEIGHT}px auto / ${NAMES_WIDTH}px auto`;
    const surface = getComputedStyle(field).getPropertyValue("--rs-surface").trim() || "#fff";
    paintGrid(
      canvas,
      { rows, columns, values: drawn },
      cellWidth,
      cellHeight,
      (value) => divergingRgb(value, most, theme),
      () => false,
      { colour: surface, is: (index) => isHatched(known, index) },
    );
    render(
      layerTicks(rows, Math.floor(ROWS_HEIGHT / 24)).map(
        (layer) => html`<span style="top:${(layer + 0.5) * cellHeight}px">${layer}</span>`,
      ),
      names,
    );
  });
  watch(signal, () => {
    const { columns, cellWidth } = size.value;
    if (!inSight.value) return render(nothing, tokens);
    // Labels are not shifted to the next token, even if the target is about it: the stream is replaced at this token.
    render(columnLabels(store, columns, cellWidth, cell.value?.column ?? store.hoveredToken.value, 0), tokens);
  });

  const marks = {
    row: element("i", "rs-lane"),
    column: element("i", "rs-lane"),
    cell: element("i", "rs-frame rs-frame-cell"),
    destination: element("i", "rs-frame"),
  };
  const tip = element("span", "rs-tip", { hidden: "" });
  overlay.append(...Object.values(marks), tip);
  watch(signal, () => {
    const { rows, columns, cellWidth, cellHeight } = size.value;
    const at = cell.value;
    const column = at?.column ?? store.hoveredToken.value ?? columns;
    const row = at?.row ?? store.activeLayer.value ?? rows;
    const destination = store.destination.value ?? columns;
    const place = (node: HTMLElement, isShown: boolean, left: number, top: number, w: number, h: number): void => {
      node.hidden = !isShown;
      Object.assign(node.style, { left: `${left}px`, top: `${top}px`, width: `${w}px`, height: `${h}px` });
    };
    place(marks.row, row < rows, 0, row * cellHeight, columns * cellWidth, cellHeight);
    place(marks.column, column < columns, column * cellWidth, 0, cellWidth, rows * cellHeight);
    place(marks.cell, at !== null, column * cellWidth, row * cellHeight, cellWidth, cellHeight);
    place(marks.destination, destination < columns, destination * cellWidth, 0, cellWidth, rows * cellHeight);
    tip.hidden = at === null;
    if (!at) return;
    tip.replaceChildren(element("b", "", {}, `layer ${at.row}`), ` ${words(at)}`);
    const end = columns * cellWidth - tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(end, (at.column + 0.5) * cellWidth - tip.offsetWidth / 2))}px`;
    const isUpper = at.row < rows / 2;
    tip.style.top = `${isUpper ? (at.row + 1) * cellHeight + 4 : at.row * cellHeight - tip.offsetHeight - 4}px`;
  });

  const said = ({ row, column }: Cell): string => `before layer ${row} at ${store.tokenName(column)}`;
  watch(signal, () => {
    const at = cell.value;
    const { rows, columns } = size.value;
    field.setAttribute(
      "aria-label",
      at
        ? `The stream ${said(at)}: ${words(at)}`
        : `The stream at ${rows} layers and ${columns} positions. Arrow keys read the cells, Enter selects ` +
            "the position.",
    );
  });
  const choose = (to: Cell | null): void => {
    batch(() => {
      cell.value = to;
      store.hoveredToken.value = to?.column ?? null;
      store.hoveredLayer.value = to?.row ?? null;
      store.sentence.value =
        to === null
          ? null
          : [`The stream ${said(to)}${isPutIn.value ? ", replaced by that of B" : ""}: `, { stress: words(to) }];
    });
  };
  const under = (event: MouseEvent): Cell | null => {
    const { rows, columns, cellWidth, cellHeight } = size.peek();
    const { left, top } = field.getBoundingClientRect();
    const clamp = (place: number, last: number): number => Math.max(0, Math.min(last, Math.floor(place)));
    if (rows === 0 || columns === 0) return null;
    return {
      row: clamp((event.clientY - top) / cellHeight, rows - 1),
      column: clamp((event.clientX - left) / cellWidth, columns - 1),
    };
  };
  field.addEventListener("pointermove", (event) => choose(under(event)), { signal });
  field.addEventListener("pointerleave", () => choose(null), { signal });
  field.addEventListener("blur", () => choose(null), { signal });
  field.addEventListener(
    "click",
    (event) => {
      const at = under(event);
      if (at) selectPosition(store, at.column);
    },
    { signal },
  );
  field.addEventListener(
    "keydown",
    (event) => {
      const { rows, columns } = size.peek();
      const now = cell.peek();
      if (event.key === "Enter" && now) selectPosition(store, now.column);
      else {
        const begin = { row: 0, column: store.destination.peek() ?? columns - 1 };
        const to = stepAcross(event, now ?? begin, rows, columns);
        if (!to || rows === 0) return;
        choose(now ? to : begin);
      }
      event.preventDefault();
    },
    { signal },
  );
  signal.addEventListener("abort", () => cell.peek() && choose(null), { once: true });
  return () => {
    const { rows: layers, columns: positions } = size.value;
    const known = stream.refusal.value === null && values.value?.some(Number.isFinite) ? found.value : null;
    const destination = store.destination.value;
    return (
      known && shownAs(STREAM, { picture: "stream", layers, positions, destination, found: known, limit: limit.value })
    );
  };
}

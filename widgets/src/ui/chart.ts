// The frame that the charts of the logit lens and of the layers share. The vertical axis has the layers, with the same
// rows as the head map (state/axis.ts). The horizontal axis has the values. The pointer and the arrow keys move a
// cursor from mark to mark. Horizontal positions are percentages, so that nothing has to be measured.
import { computed, type ReadonlySignal, signal as state, untracked } from "@preact/signals-core";
import { scaleLinear } from "d3-scale";
import { html, nothing, render, type TemplateResult } from "lit-html";
import { signed } from "../base/format";
import { element, watch } from "../base/lifetime";
import type { Sentence } from "../base/sentence";
import { limitOf } from "../draw/colours";
import { along, placeAt } from "../state/axis";
import { holdOf } from "../state/held-scale";
import type { Store } from "../state/store";
import { mountTrouble } from "./caption";
import { stepAlong } from "./roving";

/** A point or a bar of a chart. */
export interface Mark {
  name: string;
  value: number;
  /** The position of the mark on the layer axis (state/axis.ts). */
  at: number;
  layer: number | null;
  sentence: Sentence;
  /** The value in a second run, drawn next to `value`. */
  second?: number;
  /** Called when the user clicks the mark, or presses Enter or Space on it. */
  choose?: () => void;
}
/** The largest absolute value of the marks. The number of decimals of all numbers in a chart depends on it. */
export function farthest(marks: Mark[]): number {
  return limitOf(marks.flatMap(({ value, second = NaN }) => [value, second]).filter(Number.isFinite));
}

/** The value of a mark: "+2.24", or "A +2.24, B −2.31" for two runs. */
function tipWords({ value, second }: Mark, largest: number): string {
  const own = signed(value, largest);
  return second === undefined ? own : `A ${own}, B ${signed(second, largest)}`;
}

export interface Chart {
  className: string;
  marks: ReadonlySignal<Mark[]>;
  summary: ReadonlySignal<string>;
  layers: ReadonlySignal<number>;
  /** The height of a layer in pixels. A row of the head map has the same height. */
  row: ReadonlySignal<number>;
  /** A sentence that says why the chart is not drawn; null if it is drawn. */
  why: ReadonlySignal<string | null>;
  /** The contents of the plot. `x` maps a value to its distance from the left, in percent. */
  draw: (x: (value: number) => number) => TemplateResult;
  /** The chart's name, below the axis. */
  caption: HTMLElement;
}

export function mountChart(parent: HTMLElement, store: Store, signal: AbortSignal, chart: Chart): void {
  const plot = element("div", "rs-plot", { tabindex: "0", role: "application", "aria-roledescription": "chart" });
  const ticks = element("div", "rs-ticks", { "aria-hidden": "true" });
  const host = element("div", `rs-chart ${chart.className}`, {}, plot, ticks, chart.caption);
  const trouble = element("p", "rs-view-trouble", { role: "note" });
  parent.append(host, trouble);
  mountTrouble(trouble, host, signal, () => chart.why.value);

  const cursor = state<number | null>(null);
  const hold = holdOf(store, "heads"); // “hold” keeps this range and the map’s colours
  const scale = computed(() => {
    const values = chart.marks.value.flatMap(({ value, second = NaN }) => [value, second]).filter(Number.isFinite);
    const low = values.reduce((least, value) => Math.min(least, value), 0);
    const high = values.reduce((most, value) => Math.max(most, value), 0);
    const range = hold.range(chart.className, { low, high });
    const margin = (range.high - range.low) * 0.04;
    return scaleLinear()
      .domain(range.low === range.high ? [-1, 1] : [range.low - margin, range.high + margin])
      .range([0, 100]);
  });

  let shownSentence: Sentence | null = null;
  const select = (index: number | null): void => {
    const mark = index === null ? undefined : chart.marks.peek()[index];
    cursor.value = mark ? index : null;
    store.hoveredLayer.value = mark?.layer ?? null;
    store.sentence.value = shownSentence = mark?.sentence ?? null;
  };
  // The sentence of a mark can change while it is on screen: new values arrive, or the user chooses another layer.
  watch(signal, () => {
    const marks = chart.marks.value;
    const index = cursor.peek();
    if (index !== null && shownSentence !== null && untracked(() => store.sentence.value) === shownSentence)
      select(marks[index] ? index : null);
  });
  plot.addEventListener("pointermove", (event) => select(nearest(event)), { signal });
  plot.addEventListener("pointerleave", () => select(null), { signal });
  plot.addEventListener("blur", () => select(null), { signal });
  const choose = (index: number | null): void => {
    if (index === null) return;
    select(index);
    chart.marks.peek()[index]?.choose?.();
  };
  plot.addEventListener("click", (event) => choose(nearest(event)), { signal });
  plot.addEventListener(
    "keydown",
    (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        return choose(cursor.peek());
      }
      const count = chart.marks.peek().length;
      const isBackward = event.key === "ArrowUp" || event.key === "ArrowLeft";
      const to = stepAlong(event.key, cursor.peek() ?? (isBackward ? count : -1), count);
      if (to === undefined) return;
      event.preventDefault();
      select(to);
    },
    { signal },
  );

  function nearest(event: MouseEvent): number | null {
    const place = placeAt(event.clientY - plot.getBoundingClientRect().top, chart.row.peek());
    let best: number | null = null;
    let distance = Infinity;
    chart.marks.peek().forEach((mark, index) => {
      if (Math.abs(mark.at - place) < distance) [best, distance] = [index, Math.abs(mark.at - place)];
    });
    return best;
  }

  watch(signal, () => {
    const row = chart.row.value;
    const toX = (value: number): number => scale.value(value);
    const index = cursor.value;
    const mark = index === null ? undefined : chart.marks.value[index];
    plot.setAttribute("aria-label", chart.summary.value);
    plot.classList.toggle("rs-choosable", mark?.choose !== undefined);
    plot.style.height = `${along(chart.layers.value, row)}px`;
    render(
      html`<i class="rs-zero" style="left:${toX(0)}%"></i>${chart.draw(toX)}
        ${
          mark
            ? html`<i class="rs-dot" style="left:${toX(mark.value)}%;top:${along(mark.at, row)}px"></i>
              <span class="rs-tip ${along(mark.at, row) < 30 ? "rs-tip-below" : ""}"
                  style="top:${along(mark.at, row)}px"><b>${mark.name}</b> ${tipWords(
                    mark,
                    farthest(chart.marks.value),
                  )}</span>`
            : null
        }`,
      plot,
    );
  });
  watch(signal, () => {
    // Two ticks: zero, and one near the end of the axis that is farther from zero.
    const [low = 0, high = 0] = scale.value.domain();
    const beyond = (count: number): number[] =>
      scale.value.ticks(count).filter((tick) => (high >= -low ? tick > 0 : tick < 0));
    // d3 is asked for more and more ticks, until one of them is on the longer side of zero.
    const far = chart.marks.value.length === 0 ? [] : ([2, 4, 8].map(beyond).find((found) => found.length > 0) ?? []);
    const shown =
      chart.marks.value.length === 0 ? [] : [0, ...far.slice(high >= -low ? -1 : 0, high >= -low ? undefined : 1)];
    render(
      html`${shown.map(
        (tick) => html`<span class=${tickClass(tick, scale.value(tick))}
          style="--at:${scale.value(tick)}%">${String(tick).replace("-", "−")}</span>`,
      )}`,
      ticks,
    );
  });
}

/** The side of zero of a tick, and whether it is so near the end of the axis that it might touch the next chart. */
function tickClass(tick: number, at: number): string | typeof nothing {
  if (tick === 0) return nothing;
  return `${tick < 0 ? "rs-tick-left" : "rs-tick-right"}${(tick < 0 ? at < 20 : at > 80) ? " rs-tick-edge" : ""}`;
}

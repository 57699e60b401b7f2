// The frame that the lens and the layer chart share: one x axis (draw/axis.ts), a y axis, the band of the layer in view,
// and a cursor that pointer and arrow keys move from mark to mark. Places are percentages: nothing measures its own box.
import { computed, type ReadonlySignal, signal as state, untracked } from "@preact/signals-core";
import { scaleLinear } from "d3-scale";
import { html, render, type TemplateResult } from "lit-html";
import { layerTicks, percent } from "../draw/axis";
import { signed } from "../format";
import { element, watch } from "../lifetime";
import { mountTrouble } from "./caption";
import type { Sentence, Store } from "../store";

export interface Mark {
  name: string;
  value: number;
  /** In layers, see draw/axis.ts. */
  x: number;
  layer: number | null;
  sentence: Sentence;
  /** What a click or Enter on it does. */
  choose?: () => void;
}
export interface Chart {
  className: string;
  marks: ReadonlySignal<Mark[]>;
  summary: ReadonlySignal<string>;
  layers: ReadonlySignal<number>;
  /** Why it is not drawn, in its place. */
  why: ReadonlySignal<string | null>;
  xAxis: boolean;
  /** What stands in the plot; `y` maps a value to percent from the top. */
  draw: (y: (value: number) => number) => TemplateResult;
}

export function mountChart(parent: HTMLElement, store: Store, signal: AbortSignal, chart: Chart): void {
  const host = element("div", `rs-chart ${chart.className}`);
  const plot = element("div", "rs-plot", { tabindex: "0", role: "application", "aria-roledescription": "chart" });
  const y = element("div", "rs-y", { "aria-hidden": "true" });
  const x = element("div", "rs-x", { "aria-hidden": "true" });
  host.append(y, plot);
  if (chart.xAxis) host.append(x);
  const trouble = element("p", "rs-view-trouble", { role: "note" });
  parent.append(element("div", "rs-view-place rs-chart-place", {}, host, trouble));
  mountTrouble(trouble, host, signal, () => chart.why.value);

  const cursor = state<number | null>(null);
  const scale = computed(() => {
    const values = chart.marks.value.map((m) => m.value).filter(Number.isFinite);
    const low = values.reduce((least, value) => Math.min(least, value), 0);
    const high = values.reduce((most, value) => Math.max(most, value), 0);
    const room = (high - low) * 0.06;
    return scaleLinear().domain(low === high ? [-1, 1] : [low - room, high + room]).range([100, 0]);
  });

  let said: Sentence | null = null;
  const select = (index: number | null): void => {
    const mark = index === null ? undefined : chart.marks.peek()[index];
    cursor.value = mark ? index : null;
    store.hoveredLayer.value = mark?.layer ?? null;
    store.sentence.value = said = mark?.sentence ?? null;
  };
  // What a mark says changes while it is read: new numbers, another layer chosen.
  watch(signal, () => {
    const marks = chart.marks.value;
    const index = cursor.peek();
    if (index !== null && said !== null && untracked(() => store.sentence.value) === said) select(marks[index] ? index : null);
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
  plot.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      return choose(cursor.peek());
    }
    const last = chart.marks.peek().length - 1;
    const from = cursor.peek() ?? (event.key === "ArrowLeft" ? last + 1 : -1);
    const to = { ArrowRight: from + 1, ArrowLeft: from - 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    select(Math.max(0, Math.min(last, to)));
  }, { signal });

  function nearest(event: MouseEvent): number | null {
    const box = plot.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * (chart.layers.peek() + 1) - 1;
    let best: number | null = null;
    let distance = Infinity;
    chart.marks.peek().forEach((mark, index) => {
      if (Math.abs(mark.x - at) < distance) [best, distance] = [index, Math.abs(mark.x - at)];
    });
    return best;
  }

  watch(signal, () => {
    const layers = chart.layers.value;
    const toY = (value: number): number => scale.value(value);
    const band = store.activeLayer.value;
    const index = cursor.value;
    const mark = index === null ? undefined : chart.marks.value[index];
    plot.setAttribute("aria-label", chart.summary.value);
    plot.classList.toggle("rs-choosable", mark?.choose !== undefined);
    const left = mark ? percent(mark.x, layers) : 0;
    render(
      html`${band === null ? null : html`<i class="rs-band" style="left:${percent(band, layers)}%;width:${100 / (layers + 1)}%"></i>`}
        <i class="rs-zero" style="top:${toY(0)}%"></i>${chart.draw(toY)}
        ${mark
          ? html`<i class="rs-dot" style="left:${left}%;top:${toY(mark.value)}%"></i>
              <span class="rs-tip ${left > 55 ? "rs-tip-left" : ""}" style="left:${left}%"><b>${mark.name}</b> ${signed(mark.value)}</span>`
          : null}`,
      plot,
    );
    const ticks = chart.marks.value.length > 0 ? scale.value.ticks(3) : [];
    render(html`${ticks.map((t) => html`<span style="top:${toY(t)}%">${String(t).replace("-", "−")}</span>`)}`, y);
    if (!chart.xAxis) return;
    render(html`${layers > 0 ? layerTicks(layers).map((l) => html`<span style="left:${percent(l + 0.5, layers)}%">${l}</span>`) : null}`, x);
  });
}

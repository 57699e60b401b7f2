// The pair map of an attention score: what each component in the query (↓) and each component in the key (→) add
// together. The last row and the last column are the sums over all other components, so that the rows sum to the query
// side and the columns to the key side.
import { computed, type ReadonlySignal, signal as state } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import { plural, signed, vanishes } from "../../base/format";
import { element, watch } from "../../base/lifetime";
import { css, divergingRgb, limitOf } from "../../draw/colours";
import { inkOn } from "../../draw/ink";
import type { Store } from "../../state/store";
import { stepAcross, TabStop } from "../../ui/roving";
import type { Component } from "../../wire/components";
import type { Pairs } from "./why-data";
import { nameOf } from "./why-lines";

/** With more columns than this, there is no room for the numbers. */
const MOST_WRITTEN = 13;

export function mountPairs(
  parent: HTMLElement,
  store: Store,
  pairs: ReadonlySignal<Pairs | null>,
  signal: AbortSignal,
): void {
  const grid = element("div", "rs-pairs", { role: "grid", "aria-label": "Pairs of components" });
  parent.append(element("div", "rs-sheet-scroll", {}, grid));
  const cursor = state<{ row: number; column: number } | null>(null);
  const tabStop = new TabStop();
  const names = (components: readonly Component[], others: number): string[] => [
    ...components.map(nameOf),
    plural(others, "other"),
  ];
  const table = computed(() => {
    const found = pairs.value;
    if (!found) return null;
    const { reply, query, key, values } = found;
    const [rows, columns] = [names(query, reply.query_others), names(key, reply.key_others)];
    const limit = limitOf(values);
    return { ...found, rows, columns, limit, sums: sumsOf(values, rows.length, columns.length) };
  });

  watch(signal, () => {
    const shown = table.value;
    const theme = store.theme.value;
    if (!shown) return render(nothing, grid);
    const { rows, columns, values, limit, sums } = shown;
    const dense = columns.length > MOST_WRITTEN;
    grid.style.setProperty("--across", String(columns.length));
    grid.classList.toggle("rs-dense", dense);
    const sum = (value: number, label: string) => {
      const written = signed(value, sums.largest);
      return html`<span class="rs-pairs-sum" role="gridcell" aria-label="${label}: ${written}">${written}</span>`;
    };
    render(
      html`<div role="row" class="rs-pairs-row">
          <span class="rs-pairs-corner" role="columnheader">query ↓<br>key →</span>
          ${columns.map(
            (name, k) => html`<span role="columnheader" class="rs-pairs-head" data-key=${k}><i>${name}</i></span>`,
          )}
          <span role="columnheader" class="rs-pairs-head"><i>sum</i></span></div>
        ${rows.map(
          (name, q) => html`<div role="row" class="rs-pairs-row"><span role="rowheader" data-query=${q}>${name}</span>
          ${columns.map((other, k) => {
            const value = values[q * columns.length + k] ?? NaN;
            const colour = divergingRgb(value, limit, theme);
            const written = signed(vanishes(value, limit) ? 0 : value, limit);
            return html`<div role="gridcell" class="rs-pairs-cell" tabindex="-1" data-cell="${q} ${k}"
              aria-label="${name} with ${other}: ${written}"
              style="background:${css(colour)};color:${inkOn(colour)}">${dense ? nothing : written}</div>`;
          })}
          ${sum(sums.query[q] ?? 0, `${name}, sum`)}</div>`,
        )}
        <div role="row" class="rs-pairs-row"><span role="rowheader">sum</span>${columns.map((name, k) =>
          sum(sums.key[k] ?? 0, `${name}, sum`),
        )}${sum(sums.total, "all")}</div>`,
      grid,
    );
    tabStop.move(grid.querySelector(".rs-pairs-cell"));
  });

  /** The components of the row and of the column of a cell. Null stands for all other components. */
  const lit = (at: { row: number; column: number } | null): (Component | null)[] =>
    at === null ? [] : [table.peek()?.query[at.row] ?? null, table.peek()?.key[at.column] ?? null];
  watch(signal, () => {
    const at = cursor.value;
    const shown = table.value;
    for (const node of grid.querySelectorAll(".rs-lit")) node.classList.remove("rs-lit");
    if (!at || !shown) return;
    grid.querySelector(`[data-query="${at.row}"]`)?.classList.add("rs-lit");
    grid.querySelector(`[data-key="${at.column}"]`)?.classList.add("rs-lit");
  });
  const point = (at: { row: number; column: number } | null): void => {
    const shown = table.peek();
    cursor.value = at;
    const head = lit(at).find((component) => component?.kind === "head");
    store.hover(head?.label ?? null);
    if (!at || !shown) return void (store.sentence.value = null);
    const value = signed(shown.values[at.row * shown.columns.length + at.column] ?? NaN, shown.limit);
    store.sentence.value = [
      `${shown.rows[at.row]} in the query with ${shown.columns[at.column]} in the key: `,
      { stress: value },
    ];
  };
  const cellOf = (event: Event): { row: number; column: number } | null => {
    const cell = event.target instanceof Element ? event.target.closest<HTMLElement>("[data-cell]") : null;
    const [row, column] = (cell?.dataset["cell"] ?? "").split(" ").map(Number);
    return cell && row !== undefined && column !== undefined ? { row, column } : null;
  };
  grid.addEventListener("pointerover", (event) => point(cellOf(event)), { signal });
  grid.addEventListener("pointerleave", () => point(null), { signal });
  grid.addEventListener(
    "focusin",
    (event) => {
      point(cellOf(event));
      if (event.target instanceof Element) tabStop.move(event.target);
    },
    { signal },
  );
  grid.addEventListener("focusout", () => point(null), { signal });
  grid.addEventListener(
    "keydown",
    (event) => {
      const at = cellOf(event);
      const shown = table.peek();
      if (!at || !shown || event.altKey || event.metaKey) return;
      const to = stepAcross(event, at, shown.rows.length, shown.columns.length);
      if (!to) return;
      event.preventDefault();
      grid.querySelector<HTMLElement>(`[data-cell="${to.row} ${to.column}"]`)?.focus();
    },
    { signal },
  );
}

function sumsOf(
  values: Float32Array,
  rows: number,
  columns: number,
): { query: number[]; key: number[]; total: number; largest: number } {
  const query = new Array<number>(rows).fill(0);
  const key = new Array<number>(columns).fill(0);
  values.forEach((value, i) => {
    query[Math.floor(i / columns)] = (query[Math.floor(i / columns)] ?? 0) + value;
    key[i % columns] = (key[i % columns] ?? 0) + value;
  });
  const total = query.reduce((sum, value) => sum + value, 0);
  return { query, key, total, largest: Math.max(...[...query, ...key, total].map(Math.abs)) };
}

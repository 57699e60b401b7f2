// The columns of the tab "why": the components that a target inside the model is made of, as signed bars around zero.
import { type ReadonlySignal, type Signal, signal as state, untracked } from "@preact/signals-core";
import { html, nothing, render, type TemplateResult } from "lit-html";
import { parseHead, plural, side, signed, starred } from "../../base/format";
import { keepFocus } from "../../base/keyboard";
import { watch } from "../../base/lifetime";
import type { Store } from "../../state/store";
import { stepAlong } from "../../ui/roving";
import type { Component } from "../../wire/components";
import type { Column } from "./why-data";
import { type Line, type Lines, linesOf } from "./why-lines";

const MORE = 20;
export const FEW = 7;

/** What the user can do with a component or with a column. */
export interface Acts {
  canAsk: (component: Component) => boolean;
  /** Asks what the component moves into the column's target. */
  ask: (component: Component, column: Column) => void;
  /** Asks why the head reads its source. */
  why: (component: Component, column: Column) => void;
  /** Shows a column's target in all views. */
  show: (column: Column) => void;
}

export function mountColumns(
  parent: HTMLElement,
  store: Store,
  columns: ReadonlySignal<Column[]>,
  shown: ReadonlySignal<string>,
  many: Signal<boolean>,
  acts: Acts,
  signal: AbortSignal,
): void {
  /** The label of the component under the pointer or with the focus. */
  const lit = state<string | null>(null);
  const tabStops = new Map<string, number>();

  const point = (component: Component | null): void => {
    lit.value = component?.label ?? null;
    const head = component?.kind === "head" ? component.label : null;
    store.hover(head !== null && parseHead(head) ? head : null);
    store.hoveredLayer.value = head === null ? (component?.layer ?? null) : null;
  };

  parent.tabIndex = -1; // takes the focus when the row with the focus is removed
  watch(signal, () => {
    const side = shown.value;
    const most = many.value ? MORE : FEW;
    const parallel = store.parallel.value;
    const all = columns.value.map((column) => ({
      column,
      found: linesOf(column.attribution, column.target, most, parallel),
    }));
    const head = store.hoveredHead.value;
    const focused = head ?? lit.value;
    const draw = (): unknown =>
      render(
        all.map(({ column, found }) => columnOf(column, found, focused, side)),
        parent,
      );
    untracked(() => keepFocus(parent, draw));
  });

  function columnOf(column: Column, found: Lines, focused: string | null, pressed: string): TemplateResult {
    const reach = reachOf(found);
    const total = signed(found.total, found.largest);
    const stop = Math.min(tabStops.get(column.id) ?? 0, Math.max(0, found.lines.length - 1));
    const name = html`<b>${column.title}</b> <span dir="auto"
      title=${starred(column.note) === column.note ? nothing : starred(column.note)}>${column.note}</span>`;
    return html`<section class="rs-why-column" data-column=${column.id} aria-label="${column.title}: ${column.note}">
      <h4>${
        column.id === "whole"
          ? html`<span class="rs-why-name">${name}</span>`
          : html`<button type="button" class="rs-why-name" aria-pressed=${pressed === column.id}
            title=${
              column.id === "moved"
                ? "Ask this: all views show it, as the next step of the trail"
                : "Show this side in all views: the head map, the layers and the lens"
            } @click=${() => acts.show(column)}>${name}</button>`
      } <span class="rs-number ${side(total)}">${total}</span></h4>
      <div class="rs-why-rows" role="list" aria-label="${column.title}, strongest first">
        ${found.lines.map((line, i) => rowOf(line, i === stop, column, found, reach, focused))}
      </div>
      ${
        found.others.count === 0
          ? html`<div class="rs-why-line rs-why-rest" aria-hidden="true"></div>`
          : html`<button type="button" class="rs-why-line rs-why-rest" aria-expanded=${many.peek()}
            title=${many.peek() ? "List fewer" : "List more of them"}
            @click=${() => (many.value = !many.peek())}>${lineOf(
              { component: null, name: plural(found.others.count, "other"), value: found.others.value },
              found,
              reach,
            )}</button>`
      }
    </section>`;
  }

  function rowOf(
    line: Line,
    isStop: boolean,
    column: Column,
    found: Lines,
    reach: Reach,
    focused: string | null,
  ): TemplateResult {
    const { component } = line;
    const written = signed(line.value, found.largest);
    const asks = component !== null && acts.canAsk(component);
    const hint = asks ? ". Enter asks what this head moves, w asks why it reads there" : "";
    return html`<div role="listitem"><div role=${asks ? "button" : "note"} tabindex=${isStop ? 0 : -1}
        class="rs-why-line ${asks ? "rs-asks" : ""} ${
          component !== null && component.label === focused ? "rs-hover" : ""
        }"
        data-label=${component?.label ?? ""} aria-label="${line.name} ${written}${hint}"
        title=${asks ? `Ask what ${line.name} moves here (Enter), or why it reads there (w)` : nothing}
        @pointerenter=${() => point(component)} @pointerleave=${() => point(null)}
        @focus=${(event: Event) => {
          if (event.target instanceof HTMLElement) remember(event.target);
          point(component);
        }} @blur=${() => point(null)}
        @click=${() => (asks ? acts.ask(component, column) : undefined)}
        @keydown=${(event: KeyboardEvent) => {
          if (!asks || event.altKey || event.ctrlKey || event.metaKey) return;
          if (event.key === "Enter" || event.key === " ") acts.ask(component, column);
          else if (event.key === "w") acts.why(component, column);
          else return;
          event.preventDefault();
          event.stopPropagation();
        }}>${lineOf(line, found, reach)}</div></div>`;
  }

  const rowsIn = (list: Element): HTMLElement[] => [...list.querySelectorAll<HTMLElement>("[data-label]")];
  const remember = (row: HTMLElement): void => {
    const list = row.closest(".rs-why-rows");
    const column = row.closest<HTMLElement>("[data-column]")?.dataset["column"];
    if (!list || column === undefined) return;
    const rows = rowsIn(list);
    tabStops.set(column, rows.indexOf(row));
    for (const one of rows) one.tabIndex = one === row ? 0 : -1;
  };
  parent.addEventListener(
    "keydown",
    (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey || !(event.target instanceof HTMLElement)) return;
      const list = event.target.closest(".rs-why-rows");
      if (!list) return;
      const rows = rowsIn(list);
      const across = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const at = rows.indexOf(event.target);
      if (across !== undefined) {
        const lists = [...parent.querySelectorAll(".rs-why-rows")];
        const next = lists[lists.indexOf(list) + across];
        const beside = next ? rowsIn(next) : [];
        beside[Math.min(at, beside.length - 1)]?.focus();
      } else {
        const to = stepAlong(event.key, at, rows.length);
        if (to === undefined) return;
        rows[to]?.focus();
      }
      event.preventDefault();
    },
    { signal },
  );
  signal.addEventListener("abort", () => untracked(() => lit.peek() !== null && point(null)), { once: true });
}

/** The ends of the axis of a column's bars. */
interface Reach {
  low: number;
  high: number;
}

function reachOf({ lines, others }: Lines): Reach {
  const values = [...lines, others].map(({ value }) => value);
  return { low: Math.min(0, ...values), high: Math.max(0, ...values) };
}

function lineOf({ name, value }: Line, { largest }: Lines, { low, high }: Reach): TemplateResult {
  const at = (v: number): number => (high > low ? ((v - low) / (high - low)) * 100 : 0);
  const written = signed(value, largest);
  return html`<span class="rs-name">${name}</span> <span class="rs-why-track" aria-hidden="true"><i
      class=${value < 0 ? "rs-minus" : "rs-plus"}
      style="left:${at(Math.min(0, value))}%;width:${Math.abs(at(value) - at(0))}%"></i><b
      style="left:${at(0)}%"></b></span> <span class="rs-number ${side(written)}">${written}</span>`;
}

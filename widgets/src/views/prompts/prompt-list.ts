// The list of prompts. Each row has a bar, a number, the prompt's text, a line for the mean, and a band for the
// standard deviation. Only the visible rows are elements of the page.
import { computed, type ReadonlySignal, signal as state, untracked } from "@preact/signals-core";
import { scaleLinear } from "d3-scale";
import { html, nothing, render } from "lit-html";
import { plural, side, signed } from "../../base/format";
import { element, watch } from "../../base/lifetime";
import type { Sentence } from "../../base/sentence";
import { limitOf } from "../../draw/colours";
import type { Store } from "../../state/store";
import { quantity } from "../../state/target";
import { whenPointedAt } from "../../ui/pointer";
import { measured } from "../../ui/width";
import { plusMinus } from "../heads/spread";
import type { PromptSpread } from "./prompt-spread";
import type { PromptTexts } from "./prompt-texts";

export interface PromptList {
  spread: ReadonlySignal<PromptSpread | null>;
  /** The prompt number of each row. */
  order: ReadonlySignal<number[]>;
  texts: PromptTexts;
  inSight: ReadonlySignal<boolean>;
}

/** The height of a row in CSS pixels. In a wide list, the text is next to the bar; in a narrow list, below it. */
const ROW_HEIGHT = { wide: 24, narrow: 42 };
/** The largest height of the visible list. */
const LIST_HEIGHT = 336;
/** The number of lists that were created so far. It makes their ids unique. */
let lists = 0;

export function mountPromptList(
  parent: HTMLElement,
  store: Store,
  { spread, order, texts, inSight }: PromptList,
  signal: AbortSignal,
): void {
  const id = `rs-prompts-${++lists}`;
  const axis = element("div", "rs-prompt-axis", { "aria-hidden": "true" });
  const sheet = element("div", "rs-prompt-sheet");
  const list = element("div", "rs-prompt-list", { role: "listbox", tabindex: "0", "aria-label": "Prompts" }, sheet);
  parent.append(axis, list);

  const width = measured(list, 900, signal);
  const isNarrow = computed(() => width.value < 520);
  const rowHeight = computed(() => (isNarrow.value ? ROW_HEIGHT.narrow : ROW_HEIGHT.wide));
  const top = state(0);
  const cursor = state<number | null>(null); // the row under the pointer, or chosen with the keys
  const scale = computed(() => {
    const { each, mean = 0, std = 0 } = spread.value ?? {};
    const values = [
      0,
      mean,
      ...(each ? [...each] : []),
      ...(Number.isFinite(std) ? [mean - std, mean + std] : []),
    ].filter(Number.isFinite);
    const [low, high] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
    const room = (high - low || 1) * 0.02;
    return scaleLinear()
      .domain([low < 0 ? low - room : low, high > 0 || low === high ? high + room : high])
      .range([0, 100]);
  });
  const rows = computed<[number, number]>(() => {
    const last = order.value.length;
    return [
      Math.min(last, Math.max(0, Math.floor(top.value / rowHeight.value))),
      Math.min(last, Math.ceil((top.value + LIST_HEIGHT) / rowHeight.value)),
    ];
  });
  const inView = computed(() => order.value.slice(...rows.value).join(" "));

  watch(signal, () => {
    if (!inSight.value) return;
    const dataKey = store.dataKey.value;
    void store.answersAgain.value;
    const prompts = inView.value
      .split(" ")
      .filter((number) => number !== "")
      .map(Number);
    untracked(() => texts.request(dataKey, prompts));
  });

  watch(signal, () => {
    const x = scale.value;
    render(
      html`<span></span><div class="rs-prompt-ticks">${x.ticks(isNarrow.value ? 4 : 6).map(
        (tick) => html`<span
          style="left:${x(tick)}%">${String(tick).replace("-", "−")}</span>`,
      )}</div>`,
      axis,
    );
    axis.classList.toggle("rs-narrow", isNarrow.value);
  });

  watch(signal, () => {
    const shownSpread = spread.value;
    const prompts = order.value;
    const activeRow = cursor.value;
    const x = scale.value;
    const height = rowHeight.value;
    void texts.version.value;
    const [from, to] = rows.value;
    list.style.height = `${Math.min(LIST_HEIGHT, Math.max(1, prompts.length) * height)}px`;
    sheet.style.height = `${prompts.length * height}px`;
    list.classList.toggle("rs-narrow", isNarrow.value);
    if (activeRow !== null && activeRow < prompts.length)
      list.setAttribute("aria-activedescendant", `${id}-${prompts[activeRow]}`);
    else list.removeAttribute("aria-activedescendant");
    if (!shownSpread?.each) return render(nothing, sheet);
    const { each, mean, std } = shownSpread;
    const largest = limitOf(each);
    const band = Number.isFinite(std)
      ? html`<b class="rs-prompt-band" style="left:${x(mean - std)}%;width:${x(mean + std) - x(mean - std)}%"></b>`
      : nothing;
    render(
      prompts.slice(from, to).map((prompt, i) => {
        const value = each[prompt] ?? NaN;
        const written = Number.isNaN(value) ? "padding" : signed(value, largest);
        const isOpen = prompt === store.prompt.value;
        const [left, right] = [Math.min(x(0), x(value)), Math.max(x(0), x(value))];
        return html`<div role="option" id="${id}-${prompt}" data-row=${from + i} aria-selected=${isOpen}
            aria-posinset=${from + i + 1} aria-setsize=${prompts.length}
          class="rs-prompt-row ${from + i === activeRow ? "rs-hover" : ""}"
              style="top:${(from + i) * height}px;height:${height}px">
          <span class="rs-prompt-number"><span class="rs-unseen">prompt </span>${prompt}</span>
          <span class="rs-prompt-track">${band}<b class="rs-origin" style="left:${x(0)}%"></b>
            ${
              Number.isFinite(value)
                ? html`<i class=${value < 0 ? "rs-minus" : "rs-plus"}
                style="left:${left}%;width:${right - left}%"></i>`
                : nothing
            }<b class="rs-prompt-mean"
                style="left:${x(mean)}%"></b></span>
          <span class="rs-number ${side(written)}">${written}</span>
          <bdi class="rs-prompt-text" dir="auto"
              title=${texts.text(prompt) ?? ""}>${texts.text(prompt) ?? "…"}</bdi></div>`;
      }),
      sheet,
    );
  });

  // Moves the cursor, and opens a prompt.
  watch(signal, () => {
    const activeRow = cursor.value;
    const shownSpread = spread.value;
    const prompt = activeRow === null ? undefined : order.value[activeRow];
    if (prompt === undefined || !shownSpread) return;
    const words = sentence(store, shownSpread, prompt);
    untracked(() => (store.sentence.value = words));
  });
  const select = (row: number | null): void => {
    if (row === cursor.peek()) return;
    cursor.value = row;
    if (row === null) store.sentence.value = null;
  };
  const rowOf = (event: Event): number | null => {
    const row =
      event.target instanceof Element ? event.target.closest<HTMLElement>("[data-row]")?.dataset["row"] : undefined;
    return row === undefined ? null : Number(row);
  };
  const open = (row: number | null): void => {
    const prompt = row === null ? undefined : order.peek()[row];
    if (prompt !== undefined) store.prompt.value = prompt === store.prompt.peek() ? null : prompt;
  };
  list.addEventListener("scroll", () => (top.value = list.scrollTop), { signal });
  whenPointedAt(list, (event) => select(rowOf(event)), signal);
  list.addEventListener("pointerleave", () => select(null), { signal });
  list.addEventListener("blur", () => select(null), { signal });
  list.addEventListener("click", (event) => open(rowOf(event)), { signal });
  list.addEventListener(
    "keydown",
    (event) => {
      const last = order.peek().length - 1;
      if (last < 0) return;
      const activeRow = cursor.peek() ?? -1;
      const page = Math.floor(LIST_HEIGHT / rowHeight.peek());
      const to = {
        ArrowDown: activeRow + 1,
        ArrowUp: activeRow - 1,
        Home: 0,
        End: last,
        PageDown: activeRow + page,
        PageUp: activeRow - page,
      }[event.key];
      if (to !== undefined) {
        const row = Math.max(0, Math.min(last, to));
        select(row);
        const [start, end] = [row * rowHeight.peek(), (row + 1) * rowHeight.peek()];
        list.scrollTop = top.value =
          start < top.peek() ? start : end > top.peek() + LIST_HEIGHT ? end - LIST_HEIGHT : top.peek();
      } else if (event.key === "Enter" || event.key === " ") open(cursor.peek());
      else return;
      event.preventDefault();
    },
    { signal },
  );
}

function sentence(store: Store, { head, each, mean, std, prompts }: PromptSpread, prompt: number): Sentence {
  const value = each?.[prompt] ?? NaN;
  const targetName = quantity(store.target.value, null);
  const largest = limitOf(each ?? [mean]);
  const stress = { stress: signed(value, largest) };
  const ending =
    ` (mean ${signed(mean, largest)} ${plusMinus(std, largest)} over ${plural(prompts, "prompt")}) · click ` +
    `${prompt === store.prompt.value ? "for the mean of all" : "to open it"}`;
  if (Number.isNaN(value)) return [`prompt ${prompt}: the position is padding here${ending}`];
  if (head === null) return [`prompt ${prompt}: ${targetName} `, stress, ending];
  return [`prompt ${prompt}: ${head} adds `, stress, ` to the ${targetName}${ending}`];
}

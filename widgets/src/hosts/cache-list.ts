// The list of the caches of one kernel. Each row has a cache's names, facts and status. If there are many rows, each is
// one line (except the row of the cache in view), and the user can filter them.
import { type ReadonlySignal, signal as state } from "@preact/signals-core";
import { html, nothing, render, type TemplateResult } from "lit-html";
import { bytes, plural } from "../base/format";
import { legibleSentence, shown as safe } from "../base/legible";
import { element, later, watch } from "../base/lifetime";
import { prose } from "../ui/prose";
import { dotted } from "../views/header/facts";
import type { CacheRow } from "../wire/protocol.gen";
import type { CacheStatus, Inspection } from "./cache-view";
import type { Caches } from "./caches";

export interface CacheGestures {
  inspect: (row: CacheRow) => void;
  /** Opens the cache in the main area; undefined if the host has no main area. */
  enlarge?: (row: CacheRow) => void;
}

/** The state of the list. */
export interface ListState {
  isOpen: ReadonlySignal<boolean>;
  /** Whether the list is shown above a view, and covers it. */
  isOverView: ReadonlySignal<boolean>;
  /** Closes the list. If `refocus`, the button that opens the list gets the focus. */
  close: (refocus: boolean) => void;
}

/** If there are more rows than this, they are short, and the user can filter them. */
const MAX_FULL_ROWS = 4;
/** One sentence about Residscope, for new users. */
export const ABOUT =
  "Residscope shows what each layer and each head contributes to a model’s prediction, and which tokens each " +
  "head reads";

const REMARKS: Partial<Record<CacheStatus, string>> = {
  rebound: "now another cache",
  gone: "deleted; its last picture stays",
  restarted: "lost when the kernel restarted",
  changed: "changed in place since it was opened",
  weights: "weights changed since it was opened",
};

/** A time before now, in words: "just now", "5 min ago", "2 h ago". */
export function timeAgo(seconds: number): string {
  if (seconds < 45) return "just now";
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  return seconds < 129_600 ? `${Math.round(seconds / 3600)} h ago` : `${Math.round(seconds / 86_400)} days ago`;
}

function remarksOn(row: CacheRow, status: CacheStatus): string[] {
  const statusRemark = REMARKS[status];
  const remarks = statusRemark ? [statusRemark] : [];
  if (row.weights_changed && status !== "weights") remarks.push("weights changed since it was first seen");
  if (row.changed && status !== "changed") remarks.push("changed in place since it was first seen");
  if (row.problem) remarks.push(row.problem);
  return remarks;
}

/** Whether each word of the query is part of a name of the cache or of its model. */
function matches(row: CacheRow, query: string): boolean {
  const text = [...row.names, row.model].join("\n").toLowerCase();
  return query
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}

export function mountCaches(
  parent: HTMLElement,
  caches: Caches,
  inspected: () => Inspection | null,
  listState: ListState,
  gestures: CacheGestures,
  signal: AbortSignal,
): void {
  const about = element("p", "rs-first");
  const filterBar = element("div", "rs-finder", { hidden: "" });
  const field = element("input", "", {
    type: "search",
    "aria-label": "Filter the caches",
    placeholder: "Filter by name or model",
    spellcheck: "false",
    autocomplete: "off",
  });
  const matchCount = element("span", "rs-found", { "aria-live": "polite" });
  filterBar.append(field, matchCount);
  const list = element("div", "rs-caches", { role: "list", "aria-label": "Activation caches" });
  const note = element("div", "rs-caches-note");
  parent.append(about, filterBar, list, note);
  const query = state("");
  const minutes = state(0); // since this list was mounted; the ages are written again each minute
  const tick = (): void =>
    later(60_000, signal, () => {
      minutes.value += 1;
      tick();
    });
  tick();

  watch(signal, () => {
    void minutes.value;
    const inspection = inspected();
    const shown = inspection?.row.value ?? null;
    const status = inspection?.status.value ?? "same";
    const rows = caches.rows.value;
    // A cache that was deleted keeps its row while its last picture is shown.
    const gone = shown && !rows.some((row) => row.ref.id === shown.ref.id) ? [shown] : [];
    const secondsSinceListed = (Date.now() - caches.listed.value) / 1000;
    const isLong = rows.length + gone.length > MAX_FULL_ROWS;
    const filter = isLong ? query.value.trim() : "";
    const item = (row: CacheRow, isGone: boolean): TemplateResult => {
      const [name = "cache", ...others] = row.names.map((each) => safe(each));
      const isShown = shown?.ref.id === row.ref.id;
      const remarks = remarksOn(row, isShown ? status : "same");
      const ago = timeAgo(row.age + secondsSinceListed);
      const facts = row.problem
        ? [safe(row.model)]
        : [
            safe(row.model),
            `${row.layers} × ${plural(row.heads, "head")}`,
            `${plural(row.prompts, "prompt")} × ${plural(row.positions, "position")}`,
            safe(`${row.dtype} on ${row.device}`),
            bytes(row.bytes),
            `first seen ${ago}`,
          ];
      const also =
        others.length > 0
          ? `also ${others.slice(0, 3).join(", ")}${others.length > 3 ? ` and ${others.length - 3} more` : ""}`
          : "";
      const without =
        row.missing.length > 0 && !row.problem ? `without ${row.missing.map((each) => safe(each)).join(", ")}` : "";
      const isLine = isLong && !isShown;
      const details = isLine
        ? html`${
            remarks.length > 0
              ? html`<span class="rs-cache-remark">${prose(remarks[0] ?? "")}</span>`
              : html`<span class="rs-brief">${row.prompts} × ${row.positions} · ${ago}</span>`
          }`
        : html`<span class="rs-cache-facts">${dotted(facts)}</span>
          ${without ? html`<span class="rs-cache-facts">${without}</span>` : nothing}
          ${remarks.map((words) => html`<span class="rs-cache-remark">${prose(words)}</span>`)}`;
      return html`<div role="listitem"
          class="rs-cache-row ${isShown ? "rs-shown" : ""} ${isGone ? "rs-gone" : ""} ${isLine ? "rs-one-line" : ""}">
        <button type="button" class="rs-cache-main" aria-current=${isShown ? "true" : "false"}
            aria-disabled=${row.problem ? "true" : "false"}
          title=${
            isLine
              ? [also ? `${name} ${also}` : name, facts.join(" · "), without, ...remarks.map(legibleSentence)]
                  .filter((line) => line !== "")
                  .join("\n")
              : nothing
          }
          @click=${() => !row.problem && gestures.inspect(row)}><b class="rs-cache">${name}</b>${
            also
              ? html` <span
              class="rs-also">${also}</span>`
              : nothing
          }
          ${details}</button>
        ${
          gestures.enlarge && !isGone && !row.problem
            ? html`<button type="button" class="rs-quiet rs-enlarge" aria-label="Open ${name} in the main area"
                title="Open in the main area" @click=${() => gestures.enlarge?.(row)}>⤢</button>`
            : nothing
        }
      </div>`;
    };
    const matching = filter === "" ? rows : rows.filter((row) => matches(row, filter));
    render([...matching.map((row) => item(row, false)), ...gone.map((row) => item(row, true))], list);
    filterBar.hidden = !isLong;
    render(filter === "" ? plural(rows.length, "cache") : `${matching.length} of ${rows.length}`, matchCount);

    const sentences = [...caches.notes.value, ...(caches.trouble.value ? [caches.trouble.value] : [])];
    const isListed = caches.kernel.value !== "";
    const isEmpty = rows.length === 0 && gone.length === 0 && isListed;
    about.hidden = shown !== null || !isListed;
    render(`${ABOUT}${rows.length > 0 ? ": choose a cache" : ""}.`, about);
    render(
      html`${
        isEmpty
          ? html`<p>This kernel has no activation cache yet. Create one, and it is listed here:
              <code>logits, cache = model.run_with_cache(tokens)</code></p>`
          : nothing
      }
      ${sentences.map((sentence) => html`<p>${prose(sentence)}</p>`)}`,
      note,
    );
  });

  watch(signal, () => {
    const root = parent.getRootNode();
    const focused = (root instanceof ShadowRoot ? root : parent.ownerDocument).activeElement;
    const isOpen = listState.isOpen.value;
    const isOverView = listState.isOverView.value;
    parent.classList.toggle("rs-over", isOverView);
    if (!isOpen && !parent.hidden) {
      field.value = query.value = "";
      // The focused element is hidden now, so the button that opens the list gets the focus.
      if (parent.contains(focused)) queueMicrotask(() => listState.close(true));
    }
    const getsFocus = parent.hidden && isOpen && isOverView;
    parent.hidden = !isOpen;
    if (getsFocus)
      (
        list.querySelector<HTMLElement>('[aria-current="true"]') ?? list.querySelector<HTMLElement>(".rs-cache-main")
      )?.focus();
  });

  field.addEventListener("input", () => (query.value = field.value), { signal });
  // The up and down keys move the focus from row to row, and between the field and the rows. A letter moves the focus
  // from the rows to the field.
  parent.addEventListener(
    "keydown",
    (event) => {
      const rows = [...list.querySelectorAll<HTMLButtonElement>(".rs-cache-main")];
      const inField = event.target === field;
      if (event.key === "Escape") {
        if (inField && field.value !== "") field.value = query.value = "";
        else if (listState.isOverView.peek()) listState.close(true);
        else return;
        event.preventDefault();
        event.stopPropagation();
        return;
      }
      if (inField && event.key === "Enter")
        return rows.find((row) => row.getAttribute("aria-disabled") !== "true")?.click();
      const index = rows.findIndex((row) => row === event.target);
      if (
        index !== -1 &&
        !filterBar.hidden &&
        event.key.length === 1 &&
        event.key !== " " &&
        !event.ctrlKey &&
        !event.metaKey &&
        !event.altKey
      )
        return field.focus();
      const to = inField
        ? { ArrowDown: 0 }[event.key]
        : index === -1
          ? undefined
          : { ArrowDown: index + 1, ArrowUp: index - 1, Home: 0, End: rows.length - 1 }[event.key];
      if (to === undefined) return;
      if (to === -1 && !filterBar.hidden) field.focus();
      else rows[Math.max(0, Math.min(rows.length - 1, to))]?.focus();
      event.preventDefault();
    },
    { signal },
  );
  parent.addEventListener(
    "focusout",
    (event) => {
      // The list closes when the focus moves elsewhere in the page, but not when the window loses the focus.
      if (event.relatedTarget instanceof Element && isElsewhere([event.relatedTarget])) listState.close(false);
    },
    { signal },
  );
  parent.ownerDocument.addEventListener(
    "pointerdown",
    (event) => {
      if (isElsewhere(event.composedPath())) listState.close(false);
    },
    { signal },
  );
  /** Whether an event happened outside the list and outside the button that opens it. */
  const isElsewhere = (path: EventTarget[]): boolean =>
    listState.isOverView.peek() &&
    listState.isOpen.peek() &&
    !path.some((node) => node instanceof Element && (parent.contains(node) || node.closest(".rs-named")));
}

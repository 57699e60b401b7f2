// The caches of one kernel, with a row for each: its facts, its names and its status. If there are many, each row is
// one line, and they can be filtered.
import { type ReadonlySignal, signal as state } from "@preact/signals-core";
import { html, nothing, render, type TemplateResult } from "lit-html";
import { bytes, plural } from "../base/format";
import { shown as fit } from "../base/legible";
import { element, later, watch } from "../base/lifetime";
import { prose } from "../ui/prose";
import { dotted } from "../views/header/facts";
import type { CacheRow } from "../wire/protocol.gen";
import type { CacheStatus, Inspection } from "./cache-view";
import type { Caches } from "./caches";

export interface CacheGestures {
  inspect: (row: CacheRow) => void;
  /** Opens the cache in the main area; undefined if the host has none. */
  enlarge?: (row: CacheRow) => void;
}

/** Whether the list is open, and whether it covers a view. */
export interface Fold {
  open: ReadonlySignal<boolean>;
  over: ReadonlySignal<boolean>;
  /** Closes the list; with `refocus` the focus goes to the button that opens it. */
  close: (refocus: boolean) => void;
}

/** If there are more caches, each row is one line, and they can be filtered. */
const FEW = 4;
/** One sentence about Residscope, for new users. */
export const WHAT =
  "Residscope shows what each layer and each head contributes to a model’s prediction, and which tokens each " +
  "head reads";

const REMARKS: Partial<Record<CacheStatus, string>> = {
  rebound: "now another cache",
  gone: "deleted; its last picture stays",
  restarted: "lost when the kernel restarted",
  changed: "changed in place since it was opened",
  weights: "weights changed since it was opened",
};

/** How long ago Residscope first saw a cache: "just now", "5 min ago", "2 h ago". */
export function age(seconds: number): string {
  if (seconds < 45) return "just now";
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  return seconds < 129_600 ? `${Math.round(seconds / 3600)} h ago` : `${Math.round(seconds / 86_400)} days ago`;
}

function remarksOn(row: CacheRow, status: CacheStatus): string[] {
  const own = REMARKS[status];
  const remarks = own ? [own] : [];
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
  fold: Fold,
  gestures: CacheGestures,
  signal: AbortSignal,
): void {
  const first = element("p", "rs-first");
  const finder = element("div", "rs-finder", { hidden: "" });
  const field = element("input", "", {
    type: "search",
    "aria-label": "Filter the caches",
    placeholder: "Filter by name or model",
    spellcheck: "false",
    autocomplete: "off",
  });
  const found = element("span", "rs-found", { "aria-live": "polite" });
  finder.append(field, found);
  const list = element("div", "rs-caches", { role: "list", "aria-label": "Activation caches" });
  const note = element("div", "rs-caches-note");
  parent.append(first, finder, list, note);
  const query = state("");
  const minute = state(0);
  const tick = (): void =>
    later(60_000, signal, () => {
      minute.value += 1;
      tick();
    });
  tick();

  watch(signal, () => {
    void minute.value;
    const inspection = inspected();
    const shown = inspection?.row.value ?? null;
    const status = inspection?.status.value ?? "same";
    const rows = caches.rows.value;
    // A cache that is gone keeps its row as long as its picture stays.
    const gone = shown && !rows.some((row) => row.ref.id === shown.ref.id) ? [shown] : [];
    const since = (Date.now() - caches.listed.value) / 1000;
    const many = rows.length + gone.length > FEW;
    const wanted = many ? query.value.trim() : "";
    const item = (row: CacheRow, isGone: boolean): TemplateResult => {
      const [name = "cache", ...others] = row.names.map((each) => fit(each));
      const isShown = shown?.ref.id === row.ref.id;
      const remarks = remarksOn(row, isShown ? status : "same");
      const seen = `first seen ${age(row.age + since)}`;
      const facts = row.problem
        ? [fit(row.model)]
        : [
            fit(row.model),
            `${row.layers} × ${plural(row.heads, "head")}`,
            `${plural(row.prompts, "prompt")} × ${plural(row.positions, "position")}`,
            fit(`${row.dtype} on ${row.device}`),
            bytes(row.bytes),
            seen,
          ];
      const also =
        others.length > 0
          ? `also ${others.slice(0, 3).join(", ")}${others.length > 3 ? ` and ${others.length - 3} more` : ""}`
          : "";
      const without =
        row.missing.length > 0 && !row.problem ? `without ${row.missing.map((each) => fit(each)).join(", ")}` : "";
      const isLine = many && !isShown;
      const details = isLine
        ? html`${
            remarks.length > 0
              ? html`<span class="rs-cache-remark">${prose(remarks[0] ?? "")}</span>`
              : html`<span class="rs-brief">${row.prompts} × ${row.positions} · ${age(row.age + since)}</span>`
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
              ? [also ? `${name} ${also}` : name, facts.join(" · "), without, ...remarks]
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
    const fitting = wanted === "" ? rows : rows.filter((row) => matches(row, wanted));
    render([...fitting.map((row) => item(row, false)), ...gone.map((row) => item(row, true))], list);
    finder.hidden = !many;
    render(wanted === "" ? plural(rows.length, "cache") : `${fitting.length} of ${rows.length}`, found);

    const sentences = [...caches.notes.value, ...(caches.trouble.value ? [caches.trouble.value] : [])];
    const listed = caches.kernel.value !== "";
    const none = rows.length === 0 && gone.length === 0 && listed;
    first.hidden = shown !== null || !listed;
    render(`${WHAT}${rows.length > 0 ? ": choose a cache" : ""}.`, first);
    render(
      html`${
        none
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
    const open = fold.open.value;
    const over = fold.over.value;
    parent.classList.toggle("rs-over", over);
    if (!open && !parent.hidden) {
      field.value = query.value = "";
      // The focused element disappears: the focus goes to the button that opens the list.
      if (parent.contains(focused)) queueMicrotask(() => fold.close(true));
    }
    const opens = parent.hidden && open && over;
    parent.hidden = !open;
    if (opens)
      (
        list.querySelector<HTMLElement>('[aria-current="true"]') ?? list.querySelector<HTMLElement>(".rs-cache-main")
      )?.focus();
  });

  field.addEventListener("input", () => (query.value = field.value), { signal });
  // Up and down move from row to row, as in a list of files, and from the field into the rows. A typed letter moves the
  // focus from the rows to the field.
  parent.addEventListener(
    "keydown",
    (event) => {
      const rows = [...list.querySelectorAll<HTMLButtonElement>(".rs-cache-main")];
      const inField = event.target === field;
      if (event.key === "Escape") {
        if (inField && field.value !== "") field.value = query.value = "";
        else if (fold.over.peek()) fold.close(true);
        else return;
        event.preventDefault();
        event.stopPropagation();
        return;
      }
      if (inField && event.key === "Enter")
        return rows.find((row) => row.getAttribute("aria-disabled") !== "true")?.click();
      const at = rows.findIndex((row) => row === event.target);
      if (
        at !== -1 &&
        !finder.hidden &&
        event.key.length === 1 &&
        event.key !== " " &&
        !event.ctrlKey &&
        !event.metaKey &&
        !event.altKey
      )
        return field.focus();
      const to = inField
        ? { ArrowDown: 0 }[event.key]
        : at === -1
          ? undefined
          : { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
      if (to === undefined) return;
      if (to === -1 && !finder.hidden) field.focus();
      else rows[Math.max(0, Math.min(rows.length - 1, to))]?.focus();
      event.preventDefault();
    },
    { signal },
  );
  parent.addEventListener(
    "focusout",
    (event) => {
      // The list closes when the focus moves elsewhere in the page, but not when the window loses the focus.
      if (event.relatedTarget instanceof Element && isElsewhere([event.relatedTarget])) fold.close(false);
    },
    { signal },
  );
  parent.ownerDocument.addEventListener(
    "pointerdown",
    (event) => {
      if (isElsewhere(event.composedPath())) fold.close(false);
    },
    { signal },
  );
  /** Whether an event happened outside the list and outside the button that opens it. */
  const isElsewhere = (path: EventTarget[]): boolean =>
    fold.over.peek() &&
    fold.open.peek() &&
    !path.some((at) => at instanceof Element && (parent.contains(at) || at.closest(".rs-named")));
}

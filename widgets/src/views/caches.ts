// The caches of one kernel, a row each: what it is, how it is reached, what has become of it.
import { signal as state } from "@preact/signals-core";
import { html, nothing, render, type TemplateResult } from "lit-html";
import type { Caches } from "../caches";
import { bytes, plural } from "../format";
import type { Fate, Inspection } from "../inspection";
import { shown as fit } from "../legible";
import { element, later, watch } from "../lifetime";
import type { CacheRow } from "../protocol.gen";
import { prose } from "./prose";

export interface CacheGestures {
  inspect: (row: CacheRow) => void;
  /** Into a place of its own; left out where the host has none. */
  enlarge?: (row: CacheRow) => void;
}

const FATES: Partial<Record<Fate, string>> = {
  rebound: "another cache now",
  gone: "deleted; its last picture stays",
  restarted: "went with the kernel’s restart",
  changed: "changed in place since it was opened",
  weights: "weights changed since it was opened",
};

/** "now", "5 min", "2 h": how long ago Residscope first saw it. */
export function age(seconds: number): string {
  if (seconds < 45) return "just now";
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  return seconds < 129_600 ? `${Math.round(seconds / 3600)} h ago` : `${Math.round(seconds / 86_400)} days ago`;
}

function remarks(row: CacheRow, fate: Fate): string[] {
  const own = FATES[fate];
  const found = own ? [own] : [];
  if (row.weights_changed && fate !== "weights") found.push("weights changed since it was first seen");
  if (row.changed && fate !== "changed") found.push("changed in place since it was first seen");
  if (row.problem) found.push(row.problem);
  return found;
}

export function mountCaches(
  parent: HTMLElement, caches: Caches, open: () => Inspection | null, gestures: CacheGestures, signal: AbortSignal,
): void {
  const list = element("div", "rs-caches", { role: "list", "aria-label": "Activation caches" });
  const note = element("div", "rs-caches-note");
  parent.append(list, note);
  const minute = state(0);
  const tick = (): void => later(60_000, signal, () => {
    minute.value += 1;
    tick();
  });
  tick();

  watch(signal, () => {
    void minute.value;
    const inspection = open();
    const shown = inspection?.row.value ?? null;
    const fate = inspection?.fate.value ?? "same";
    const rows = caches.rows.value;
    // A cache that is gone keeps its row as long as its picture stays.
    const gone = shown && !rows.some((row) => row.ref.id === shown.ref.id) ? [shown] : [];
    const since = (Date.now() - caches.listed.value) / 1000;
    const item = (row: CacheRow, isGone: boolean): TemplateResult => {
      const [name = "cache", ...others] = row.names.map((each) => fit(each));
      const isShown = shown?.ref.id === row.ref.id;
      const said = remarks(row, isShown ? fate : "same");
      const facts = row.problem ? [fit(row.model)] : [
        fit(row.model), `${row.layers} × ${plural(row.heads, "head")}`, `${plural(row.prompts, "prompt")} × ${plural(row.positions, "position")}`,
        fit(`${row.dtype} on ${row.device}`), bytes(row.bytes), `first seen ${age(row.age + since)}`,
      ];
      return html`<div role="listitem" class="rs-cache-row ${isShown ? "rs-shown" : ""} ${isGone ? "rs-gone" : ""}">
        <button type="button" class="rs-cache-main" aria-current=${isShown ? "true" : "false"} aria-disabled=${row.problem ? "true" : "false"}
          @click=${() => !row.problem && gestures.inspect(row)}><b class="rs-cache">${name}</b>${others.length > 0 ? html` <span class="rs-also">also ${others.slice(0, 3).join(", ")}${others.length > 3 ? ` and ${others.length - 3} more` : ""}</span>` : nothing}
          <span class="rs-cache-facts">${facts.map((part, i) => html`<span>${part}${i < facts.length - 1 ? " ·" : ""}</span> `)}</span>
          ${row.missing.length > 0 && !row.problem ? html`<span class="rs-cache-facts">without ${row.missing.map((each) => fit(each)).join(", ")}</span>` : nothing}
          ${said.map((words) => html`<span class="rs-cache-remark">${prose(words)}</span>`)}</button>
        ${gestures.enlarge && !isGone && !row.problem
          ? html`<button type="button" class="rs-quiet rs-enlarge" aria-label="Open ${name} in the main area" title="Open in the main area" @click=${() => gestures.enlarge?.(row)}>⤢</button>`
          : nothing}
      </div>`;
    };
    render([...rows.map((row) => item(row, false)), ...gone.map((row) => item(row, true))], list);
    const sentences = [...caches.notes.value, ...(caches.trouble.value ? [caches.trouble.value] : [])];
    const none = rows.length === 0 && gone.length === 0 && caches.kernel.value !== "";
    render(html`${none ? html`<p>No activation cache in this kernel yet. Make one and it stands here: <code>logits, cache = model.run_with_cache(tokens)</code></p>` : nothing}
      ${sentences.map((sentence) => html`<p>${prose(sentence)}</p>`)}`, note);
  });

  // Up and down go from row to row, as in a list of files.
  list.addEventListener("keydown", (event) => {
    const rows = [...list.querySelectorAll<HTMLButtonElement>(".rs-cache-main")];
    const at = rows.findIndex((row) => row === document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (at === -1 || to === undefined) return;
    rows[Math.max(0, Math.min(rows.length - 1, to))]?.focus();
    event.preventDefault();
  }, { signal });
}

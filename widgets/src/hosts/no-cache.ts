// The message that replaces a view if the kernel does not have the view's cache. It names other caches, because a view
// outside the sidebar has no list of caches.
import { html, nothing, render } from "lit-html";
import { coded } from "../base/legible";
import { watch } from "../base/lifetime";
import { prose } from "../ui/prose";
import type { Inspection } from "./cache-view";
import type { Caches } from "./caches";

/** The message names at most this many other caches. */
const MAX_NAMES = 5;

export function mountNoCache(parent: HTMLElement, caches: Caches, inspection: Inspection, signal: AbortSignal): void {
  watch(signal, () => {
    const trouble = caches.trouble.value;
    const isAbsent = inspection.row.value === null && caches.fresh.value && !caches.named(inspection.name);
    const others = caches.rows.value.flatMap(({ names: [name] }) => (name === undefined ? [] : [coded(name)]));
    const more = others.length > MAX_NAMES ? ` and ${others.length - MAX_NAMES} more` : "";
    const words =
      !isAbsent || trouble
        ? null
        : `This kernel has no cache named ${coded(inspection.name)}. Run the cell that makes it, and it is shown here.`;
    const instead =
      others.length === 0
        ? ""
        : ` The kernel holds ${others.slice(0, MAX_NAMES).join(", ")}${more}: open ` +
          `${others.length > 1 ? "one of them" : "it"} from the list of caches.`;
    render(
      trouble
        ? html`<p role="alert">${prose(trouble)}</p>`
        : words
          ? html`<p role="alert">${prose(words + instead)}</p>`
          : nothing,
      parent,
    );
  });
}

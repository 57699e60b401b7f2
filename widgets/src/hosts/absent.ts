// The message in place of a view whose cache the kernel does not have. It names other caches, because a view outside
// the sidebar has no list of them.
import { html, nothing, render } from "lit-html";
import { coded } from "../base/legible";
import { watch } from "../base/lifetime";
import { prose } from "../ui/prose";
import type { Inspection } from "./cache-view";
import type { Caches } from "./caches";

/** The most names of other caches in the message. */
const MOST = 5;

export function mountAbsent(parent: HTMLElement, caches: Caches, inspection: Inspection, signal: AbortSignal): void {
  watch(signal, () => {
    const trouble = caches.trouble.value;
    const isAbsent = inspection.row.value === null && caches.fresh.value && !caches.named(inspection.name);
    const others = caches.rows.value.flatMap(({ names: [name] }) => (name === undefined ? [] : [coded(name)]));
    const more = others.length > MOST ? ` and ${others.length - MOST} more` : "";
    const words =
      !isAbsent || trouble
        ? null
        : `This kernel has no cache named ${coded(inspection.name)}. Run the cell that makes it, and it is shown here.`;
    const instead =
      others.length === 0
        ? ""
        : ` The kernel holds ${others.slice(0, MOST).join(", ")}${more}: open ` +
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

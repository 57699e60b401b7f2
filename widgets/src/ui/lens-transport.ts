// The choice between the plain lens and the lens that the user gave: in words, and as a switch. The user's lens maps
// the stream at a point to the end of the stream.
import { html, nothing, type TemplateResult } from "lit-html";
import { shown } from "../base/legible";
import type { Store, Transport } from "../state/store";

/** What is read in place of the stream: "h + A h + b is read in place of the stream h (tuned lens)"; null if plain. */
export function readInPlace(store: Store): string | null {
  return store.lensTransport.value === "transported" ? ofLens(store) : null;
}

function ofLens(store: Store): string {
  const { name = "", formula = "" } = store.facts.value?.lens ?? {};
  return `${shown(formula)} is read in place of the stream h${name ? ` (${shown(name)})` : ""}`;
}

/** The two choices, with their tips; empty if no lens was given. */
export function transports(store: Store): [Transport, string][] {
  if (!store.facts.value?.lens) return [];
  return [
    ["plain", "The stream h is read as it is."],
    ["transported", store.whyPlain.value ?? `${ofLens(store)}.`],
  ];
}

export function transportSwitch(store: Store): TemplateResult | typeof nothing {
  const choices = transports(store);
  if (choices.length === 0) return nothing;
  return html`<div class="rs-switch" role="group" aria-label="Lens">
    ${choices.map(
      ([name, tip]) => html`<button type="button" aria-pressed=${store.lensTransport.value === name}
          ?disabled=${name === "transported" && store.whyPlain.value !== null} title=${tip}
          @click=${() => (store.transport.value = name)}>${name}</button>`,
    )}
  </div>`;
}

// A button that pairs the positions of two runs by the tokens that both prompts have.
import { html, nothing, type TemplateResult } from "lit-html";
import { aligned } from "../state/comparison";
import type { Store } from "../state/store";

const BY_TOKEN = "Compares the tokens that both prompts have in the same order; the others are left out";

export function alignByToken(store: Store): TemplateResult | typeof nothing {
  const against = store.against.value;
  if (against === null || against.align || store.isSaved.value) return nothing;
  return html`<button type="button" class="rs-act rs-align" title=${BY_TOKEN}
      @click=${() => (store.against.value = aligned(against, "by token"))}>align by token</button>`;
}

/** The same button, for a view that cannot show two runs before they are aligned; nothing if aligning does not help. */
export function alignOffer(store: Store): TemplateResult | typeof nothing {
  return store.runs.areUnaligned.value ? html` ${alignByToken(store)}` : nothing;
}

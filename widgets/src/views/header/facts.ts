// Short facts with dots between them; at a line break the dot is hidden.
import { html, type TemplateResult } from "lit-html";

export function dotted(parts: string[]): TemplateResult {
  return html`<span class="rs-dotted"><span>${parts.map(
    (part, i) => html`<span
      class="rs-fact">${i > 0 ? html`<i> · </i>` : ""}<span>${part}</span></span>`,
  )}</span></span>`;
}

// What is known of a cache in a few words each, with a dot between two: where a line breaks, no dot is left over.
import { html, type TemplateResult } from "lit-html";

export function dotted(parts: string[]): TemplateResult {
  return html`<span class="rs-dotted"><span>${parts.map(
    (part, i) => html`<span
      class="rs-fact">${i > 0 ? html`<i> · </i>` : ""}<span>${part}</span></span>`,
  )}</span></span>`;
}

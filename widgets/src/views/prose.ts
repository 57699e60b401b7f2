// A sentence in which `names` of the code stand in the code's type.
import { html, type TemplateResult } from "lit-html";

export function prose(sentence: string): TemplateResult {
  return html`${sentence.split("`").map((part, i) => (i % 2 === 1 ? html`<code>${part}</code>` : part))}`;
}

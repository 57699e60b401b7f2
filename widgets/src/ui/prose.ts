// A sentence in which `names` of the code stand in the code's type. Whatever it quotes, it is fit to be shown.
import { html, type TemplateResult } from "lit-html";
import { fitted, isolated } from "../base/legible";

export function prose(sentence: string): TemplateResult {
  return html`${sentence
    .split("`")
    .map((part, i) => (i % 2 === 1 ? html`<code>${isolated(fitted(part))}</code>` : fitted(part)))}`;
}

// Renders a sentence. Names in backquotes are shown in the code font. All text is made safe to show.
import { html, type TemplateResult } from "lit-html";
import { isolated, legibleSentence } from "../base/legible";

export function prose(sentence: string): TemplateResult {
  return html`${sentence
    .split("`")
    .map((part, i) => (i % 2 === 1 ? html`<code>${isolated(legibleSentence(part))}</code>` : legibleSentence(part)))}`;
}

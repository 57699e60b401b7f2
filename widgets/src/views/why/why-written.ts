// The tokens whose logits a head changes most, up and down: by its whole output, and by what its W_OV writes for one
// source.
import { html, nothing, render, type TemplateResult } from "lit-html";
import { headName, side, signed, visible } from "../../base/format";
import { legibleSentence } from "../../base/legible";
import { watch } from "../../base/lifetime";
import type { Store } from "../../state/store";
import type { HeadTokensReply } from "../../wire/protocol.gen";

type Tokens = HeadTokensReply["output_top"];

export function mountWritten(
  parent: HTMLElement,
  store: Store,
  read: () => HeadTokensReply | null,
  trouble: () => string | null,
  signal: AbortSignal,
): void {
  watch(signal, () => {
    const reply = read();
    const why = trouble();
    parent.hidden = reply === null && why === null;
    if (why !== null) return render(html`<p class="rs-why-note">${why}</p>`, parent);
    if (!reply) return render(nothing, parent);
    const { layer, head, source, notes } = reply;
    const name = headName(layer, head);
    render(
      html`<div title=${legibleSentence(notes.join(" ")) || nothing}>
        ${group(html`${name} raises and lowers most, in logits`, reply.output_top, reply.output_bottom)}
        ${
          source === null
            ? nothing
            : group(
                html`its W<sub>OV</sub>, for <span class="rs-name" dir="auto">${store.tokenName(source)}</span>`,
                reply.source_top,
                reply.source_bottom,
              )
        }
      </div>`,
      parent,
    );
  });
}

/** A title. Below it are a line of the tokens that are raised, and a line of the tokens that are lowered. */
function group(title: TemplateResult, top: Tokens, bottom: Tokens): TemplateResult {
  const largest = Math.max(0, ...[...top, ...bottom].map(({ value }) => Math.abs(value)));
  const line = (tokens: Tokens): TemplateResult =>
    html`<div>${tokens.map(({ token, value }) => {
      const written = signed(value, largest);
      return html`<span class="rs-why-token"><span class="rs-name" dir="auto">${visible(token.text)}</span> <b
          class="rs-number ${side(written)}">${written}</b></span> `;
    })}</div>`;
  return html`<div class="rs-why-tokens"><div class="rs-why-title">${title}</div> ${line(top)} ${line(bottom)}</div>`;
}

// What a head would write: the tokens that its output raises and lowers most, and those of what it reads at one source.
import { html, nothing, render, type TemplateResult } from "lit-html";
import { headName, side, signed, visible } from "../../base/format";
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
      html`<dl title=${notes.join(" ") || nothing}>
        <dt>${name} writes</dt> ${listed(reply.output_top, reply.output_bottom)}
        ${
          source === null
            ? nothing
            : html`<dt>its W<sub>OV</sub> for <span class="rs-name" dir="auto">${store.tokenName(source)}</span></dt>
            ${listed(reply.source_top, reply.source_bottom)}`
        }
      </dl>`,
      parent,
    );
  });
}

function listed(top: Tokens, bottom: Tokens): TemplateResult {
  const all = [...top, ...bottom];
  const largest = Math.max(0, ...all.map(({ value }) => Math.abs(value)));
  return html`<dd>${all.map(({ token, value }) => {
    const written = signed(value, largest);
    return html`<span class="rs-why-token"><span class="rs-name" dir="auto">${visible(token.text)}</span> <b
        class="rs-number ${side(written)}">${written}</b></span> `;
  })}</dd>`;
}

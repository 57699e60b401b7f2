// The footer: one sentence for what is under the pointer or the focus. Its height is fixed.
import { html, render } from "lit-html";
import type { Client } from "../client";
import { parseHead, signed } from "../format";
import { element, watch } from "../lifetime";
import type { Sentence, Store } from "../store";

const HINT: Sentence = ["Hover over a head to see where it looks; click to keep it. Click a token to read the model there. Esc lets go."];

export function mountSentence(parent: HTMLElement, store: Store, _client: Client, signal: AbortSignal): void {
  const line = element("p", "rs-sentence", { "aria-live": "polite" });
  parent.append(line);
  watch(signal, () => {
    const own = store.sentence.value;
    const sentence = own ?? headSentence(store) ?? HINT;
    line.classList.toggle("rs-hint", sentence === HINT);
    render(
      html`${sentence.map((part) => typeof part === "string" ? part : html`<b class=${part.sign < 0 ? "rs-minus" : "rs-plus"}>${part.stress}</b>`)}`,
      line,
    );
  });
}

function headSentence(store: Store): Sentence | null {
  const name = store.hoveredHead.value;
  const head = name === null ? null : parseHead(name);
  if (name === null || !head) return null;
  const value = store.headValue(name);
  const kept = store.heads.value.includes(name);
  if (store.isAbsent(name)) return [`${name}: layer ${head.layer} has no attention heads`];
  const what = `${name}: head ${head.head} of layer ${head.layer}`;
  if (value === null) return [what];
  return [
    `${what} ${value < 0 ? "takes" : "adds"} `, { stress: signed(value), sign: value },
    ` ${value < 0 ? "from" : "to"} the ${store.quantity.value} · click to ${kept ? "let go" : "keep it"}`,
  ];
}

// Choosing a token: the model's own top predictions, filtered as one types, and a live check of the typed text.
import { computed, signal as state, untracked } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import type { Client } from "../client";
import { visible } from "../format";
import { fitted } from "../legible";
import { later, watch, child } from "../lifetime";
import { isOutdated } from "../loader";
import type { Prediction, Token, TokenCheck } from "../protocol.gen";
import type { Store } from "../store";
import type { Side } from "../target";

export interface Choice {
  choose: (token: Token) => void;
  close: (refocus: boolean) => void;
}
interface Option {
  token: Token;
  note: string;
}

const SHOWN = 8;
let boxes = 0;

export function mountCombobox(parent: HTMLElement, side: Side, store: Store, client: Client, signal: AbortSignal, act: Choice): void {
  const id = `rs-combobox-${++boxes}`;
  const typed = state("");
  const chosen = state<number | null>(null); // by arrow or pointer
  const predictions = state<Prediction[] | null>(null);
  const check = state<TokenCheck | null>(null);
  const refused = state("");
  const entered = state(false); // Enter was pressed on text whose check is still on its way
  const quiet = (error: unknown): void => {
    if (signal.aborted) return;
    refused.value = isOutdated(error, store) ? "This cache cannot be asked any more: what has become of it is said above." : error instanceof Error ? error.message : String(error);
  };

  client.latest("suggest", { kind: "suggest", prompt: store.prompt.peek(), position: store.locked.peek(), k: 24 })
    .then((result) => result && (predictions.value = result.reply.predictions), quiet);

  // The check waits for a pause in the typing; a newer one overtakes it.
  let pause: AbortController | null = null;
  watch(signal, () => {
    const text = typed.value;
    pause?.abort();
    pause = child(signal);
    if (text === "") return untracked(() => void (check.value = null));
    later(entered.value ? 0 : 120, pause.signal, () => {
      client.latest("check", { kind: "check", text }).then((result) => {
        if (result?.reply.text !== typed.peek()) return;
        check.value = result.reply;
        const token = result.reply.single ? result.reply.tokens[0] : undefined;
        if (entered.peek() && token) act.choose(token);
        entered.value = false;
      }, quiet);
    });
  });

  const options = computed<Option[]>(() => {
    const text = typed.value;
    const found: Option[] = [];
    const add = (token: Token, note: string): void => {
      if (!found.some((o) => o.token.id === token.id)) found.push({ token, note });
    };
    const checked = check.value?.text === text ? check.value : null;
    if (checked?.single && checked.tokens[0]) add(checked.tokens[0], "as typed");
    for (const token of checked && !checked.single ? checked.suggestions : []) add(token, "one token");
    const needle = text.trim().toLowerCase();
    for (const { token, probability } of predictions.value ?? []) {
      if (found.length >= SHOWN) break;
      if (needle === "" || token.text.toLowerCase().includes(needle)) add(token, percent(probability));
    }
    for (const token of checked?.single ? checked.suggestions : []) if (found.length < SHOWN) add(token, "one token");
    return found;
  });

  /** The first one, unless what was typed is no token: then what stands there is something else, to be chosen by hand. */
  const active = computed<number>(() => {
    const other = check.value?.text === typed.value && check.value.single === false;
    return Math.min(chosen.value ?? (other && typed.value !== "" ? -1 : 0), options.value.length - 1);
  });

  watch(signal, () => {
    const list = options.value;
    const at = active.value;
    const checked = check.value?.text === typed.value ? check.value : null;
    const said = checked?.message ? checked : null;
    render(
      html`<input type="text" role="combobox" aria-label="Token for the ${side}" aria-expanded="true" aria-autocomplete="list"
          aria-controls=${id} aria-activedescendant=${at >= 0 ? `${id}-${at}` : nothing} autocomplete="off" spellcheck="false" autocapitalize="off"
          placeholder="type a token: start with a space for ·word" .value=${shownAs(typed.value)} @input=${input} @keydown=${keys}>
        <div role="listbox" id=${id} aria-label="Tokens">
          ${list.map((o, i) => html`<div role="option" id="${id}-${i}" class="rs-option" aria-selected=${i === at}
            @pointerenter=${() => (chosen.value = i)} @pointerdown=${(e: Event) => e.preventDefault()} @click=${() => act.choose(o.token)}>
            <span class="rs-name">${visible(o.token.text)}</span><small>${o.note}</small></div>`)}
        </div>
        ${said ? html`<p class=${said.single ? "" : "rs-broken"}>${fitted(said.message)}${said.tokens.length > 1
            ? html` <span>${said.tokens.map((t) => html`<code>${visible(t.text)}</code>`)}</span>` : nothing}</p>` : nothing}
        ${predictions.value === null && !refused.value ? html`<p>asking the model’s predictions …</p>` : nothing}
        ${refused.value ? html`<p class="rs-broken">${refused.value}</p>` : nothing}`,
      parent,
    );
  });
  parent.querySelector("input")?.focus({ preventScroll: true });

  function input(event: Event): void {
    const field = event.target as HTMLInputElement;
    chosen.value = null;
    entered.value = false;
    typed.value = field.value.replace(/^·/, " ");
    const caret = field.selectionStart;
    field.value = shownAs(typed.value);
    field.setSelectionRange(caret, caret);
  }
  function keys(event: KeyboardEvent): void {
    const count = options.peek().length;
    const at = active.peek();
    if (event.key === "ArrowDown") chosen.value = count > 0 ? (at + 1) % count : 0;
    else if (event.key === "ArrowUp") chosen.value = count > 0 ? (Math.max(at, 0) + count - 1) % count : 0;
    else if (event.key === "Escape") act.close(true);
    else if (event.key === "Enter") {
      const option = options.peek()[at];
      // What was typed counts, not the prediction that happens to stand first while the check is on its way.
      if (typed.peek() !== "" && at <= 0 && check.peek()?.text !== typed.peek()) entered.value = true;
      else if (option) act.choose(option.token);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

/** The leading space is shown as in tokens; the rest is as typed. */
function shownAs(text: string): string {
  return text.replace(/^ /, "·");
}

function percent(probability: number): string {
  return probability >= 0.0995 ? `${(probability * 100).toFixed(0)} %` : `${(probability * 100).toFixed(1)} %`;
}

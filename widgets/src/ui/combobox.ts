// Choosing a token: the model's own top predictions, filtered as one types, and a live check of the typed text. Where
// all of the target may be chosen: what lies in the notebook, too.
import { computed, signal as state, untracked } from "@preact/signals-core";
import { html, nothing, render, type TemplateResult } from "lit-html";
import { visible } from "../base/format";
import { fitted, shown } from "../base/legible";
import { child, later, watch } from "../base/lifetime";
import { isOutdated } from "../state/loader";
import type { Store } from "../state/store";
import type { Side } from "../state/target";
import type { Client } from "../wire/client";
import type { AnswersReply, Prediction, Target, Token, TokenCheck } from "../wire/protocol.gen";
import { prose } from "./prose";

export interface Choice {
  choose: (token: Token) => void;
  /** All of the target, with what must be told of it, and where it came from (null: a panel). */
  take: (target: Target, notes: string[], from: string | null) => void;
  close: (refocus: boolean) => void;
}
interface Option {
  token: Token;
  note: string;
}

/** What lies in the notebook: a variable, or (null) what an inline panel has. */
interface Found {
  name: string | null;
  words: string;
}

const SHOWN = 8;
const FOUND = 5;
let boxes = 0;

export function mountCombobox(
  parent: HTMLElement,
  side: Side,
  store: Store,
  client: Client,
  signal: AbortSignal,
  act: Choice,
): void {
  const id = `rs-combobox-${++boxes}`;
  const typed = state("");
  // By arrow or pointer. Tokens come and go while the check is on its way: what is chosen below them stays chosen.
  const chosen = state<{ at: number; isFound: boolean } | null>(null);
  const predictions = state<Prediction[] | null>(null);
  const check = state<TokenCheck | null>(null);
  const refused = state("");
  const entered = state(false); // Enter was pressed on text whose check is still on its way
  const lying = state<AnswersReply | null>(null);
  const reading = state<string | null>(null);
  const quiet = (error: unknown): void => {
    if (signal.aborted) return;
    reading.value = null;
    refused.value = isOutdated(error, store)
      ? "This cache cannot be asked any more: what has become of it is said above."
      : error instanceof Error
        ? error.message
        : String(error);
  };

  client
    .latest("suggest", { kind: "suggest", prompt: store.prompt.peek(), position: store.chosenPosition.peek(), k: 24 })
    .then((result) => result && (predictions.value = result.reply.predictions), quiet);

  if (side === "answer" && !store.isSaved.peek())
    client.latest("answers", { kind: "answers" }).then((result) => result && (lying.value = result.reply), quiet);

  const read = (name: string | null): void => {
    refused.value = "";
    reading.value = name ?? "the panel";
    client.latest("resolve", { kind: "resolve", name }).then((result) => {
      if (result && !signal.aborted) act.take(result.reply.target, result.reply.notes, name);
    }, quiet);
  };

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

  const found = computed<Found[]>(() => {
    const { variables = [], panel = null } = lying.value ?? {};
    const needle = typed.value.trim().toLowerCase();
    const named = variables.filter(({ name }) => name.toLowerCase().includes(needle));
    return panel === null || needle !== "" ? named : [{ name: null, words: panel }, ...named];
  });
  const listed = computed(() => found.value.slice(0, FOUND));

  /**
   * The first one, unless what was typed is no token: then what stands there is something else, to be chosen by hand.
   */
  const active = computed<number>(() => {
    const other = check.value?.text === typed.value && check.value.single === false;
    const count = options.value.length;
    const { at, isFound } = chosen.value ?? { at: other && typed.value !== "" ? -1 : 0, isFound: false };
    // A variable is only ever chosen by hand: what is typed is a token.
    return isFound && at < listed.value.length ? count + at : Math.min(at, count - 1);
  });

  const pick = (at: number): void => {
    const isFound = at >= options.peek().length;
    chosen.value = { at: isFound ? at - options.peek().length : at, isFound };
  };

  watch(signal, () => {
    const list = options.value;
    const here = listed.value;
    const more = found.value.length - here.length;
    const at = active.value;
    const option = (
      i: number,
      name: string,
      note: string,
      act: () => void,
    ): TemplateResult => html`<div role="option" id="${id}-${i}" class="rs-option" aria-selected=${i === at}
      @pointerenter=${() => pick(i)} @pointerdown=${(e: Event) => e.preventDefault()} @click=${act}><span
          class="rs-name">${name}</span><small>${note}</small></div>`;
    const checked = check.value?.text === typed.value ? check.value : null;
    const said = checked?.message ? checked : null;
    render(
      html`<input type="text" role="combobox" aria-label="Token for the ${side}" aria-expanded="true"
          aria-autocomplete="list"
          aria-controls=${id} aria-activedescendant=${at >= 0 ? `${id}-${at}` : nothing} autocomplete="off"
              spellcheck="false" autocapitalize="off"
          placeholder="type a token: start with a space for ·word" .value=${shownAs(typed.value)} @input=${input}
              @keydown=${keys}>
        <div role="listbox" id=${id} aria-label="Tokens">
          ${list.map((o, i) => option(i, visible(o.token.text), o.note, () => act.choose(o.token)))}
          ${
            here.length === 0
              ? nothing
              : html`<div role="group" class="rs-found" aria-labelledby="${id}-found"><div role="presentation"
                  class="rs-found-title" id="${id}-found">From the notebook</div>
            ${here.map(({ name, words }, i) =>
              option(list.length + i, name === null ? "as in the panel" : shown(name, 30), fitted(words), () =>
                read(name),
              ),
            )}</div>`
          }
        </div>
        ${more > 0 ? html`<p>${more} more in the notebook: type a part of the name.</p>` : nothing}
        ${(lying.value?.notes ?? []).map((note) => html`<p>${prose(note)}</p>`)}
        ${reading.value === null ? nothing : html`<p>reading ${shown(reading.value, 30)} …</p>`}
        ${
          said
            ? html`<p class=${said.single ? "" : "rs-broken"}>${fitted(said.message)}${
                said.tokens.length > 1
                  ? html` <span>${said.tokens.map((t) => html`<code>${visible(t.text)}</code>`)}</span>`
                  : nothing
              }</p>`
            : nothing
        }
        ${predictions.value === null && !refused.value ? html`<p>asking the model’s predictions …</p>` : nothing}
        ${refused.value ? html`<p class="rs-broken" role="alert">${prose(refused.value)}</p>` : nothing}`,
      parent,
    );
  });
  parent.querySelector("input")?.focus({ preventScroll: true });

  function input(event: Event): void {
    const field = event.target as HTMLInputElement;
    chosen.value = null;
    refused.value = "";
    entered.value = false;
    typed.value = field.value.replace(/^·/, " ");
    const caret = field.selectionStart;
    field.value = shownAs(typed.value);
    field.setSelectionRange(caret, caret);
  }
  function keys(event: KeyboardEvent): void {
    const tokens = options.peek();
    const count = tokens.length + listed.peek().length;
    const at = active.peek();
    if (event.key === "ArrowDown") pick(count > 0 ? (at + 1) % count : 0);
    else if (event.key === "ArrowUp") pick(count > 0 ? (Math.max(at, 0) + count - 1) % count : 0);
    else if (event.key === "Escape") act.close(true);
    else if (event.key === "Enter") {
      const option = tokens[at];
      const found = at >= 0 ? listed.peek()[at - tokens.length] : undefined;
      // What was typed counts, not the prediction that happens to stand first while the check is on its way.
      if (found) read(found.name);
      else if (typed.peek() !== "" && at <= 0 && check.peek()?.text !== typed.peek()) entered.value = true;
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

// The token picker: the model's top predictions, filtered while the user types, and a live check of the typed text.
// Where a whole target can be chosen, it also lists variables of the notebook.
import { computed, signal as state, untracked } from "@preact/signals-core";
import { html, nothing, render, type TemplateResult } from "lit-html";
import { visible } from "../base/format";
import { fitted, shown } from "../base/legible";
import { child, later, watch } from "../base/lifetime";
import { isOutdated } from "../state/loader";
import { suggestions } from "../state/questions";
import type { Store } from "../state/store";
import type { Side } from "../state/target";
import type { Client } from "../wire/client";
import type { AnswersReply, Prediction, Target, Token, TokenCheck } from "../wire/protocol.gen";
import { prose } from "./prose";

export interface Choice {
  choose: (token: Token) => void;
  /** Takes a whole target, with notes on it, and the variable it came from (null: an inline panel). */
  take: (target: Target, notes: string[], from: string | null) => void;
  close: (refocus: boolean) => void;
}
interface Option {
  token: Token;
  note: string;
}

/** A target found in the notebook: in a variable, or in an inline panel (`name` is null). */
interface NotebookTarget {
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
  // Chosen with the arrow keys or the pointer. The list of tokens changes when the check is answered: a variable that
  // was chosen below it stays chosen.
  const chosen = state<{ at: number; isFound: boolean } | null>(null);
  const predictions = state<Prediction[] | null>(null);
  const check = state<TokenCheck | null>(null);
  const refused = state("");
  const entered = state(false); // Enter was pressed before the check of the text was answered
  const inNotebook = state<AnswersReply | null>(null);
  const reading = state<string | null>(null);
  const report = (error: unknown): void => {
    if (signal.aborted) return;
    reading.value = null;
    refused.value = isOutdated(error, store)
      ? "This cache cannot be read any more. The line above says why."
      : error instanceof Error
        ? error.message
        : String(error);
  };

  client
    .latest(
      "suggest",
      untracked(() => suggestions(store.shown)),
    )
    .then((result) => result && (predictions.value = result.reply.predictions), report);

  if (side === "answer" && !store.isSaved.peek())
    client.latest("answers", { kind: "answers" }).then((result) => result && (inNotebook.value = result.reply), report);

  const read = (name: string | null): void => {
    refused.value = "";
    reading.value = name ?? "the panel";
    client.latest("resolve", { kind: "resolve", name }).then((result) => {
      if (result && !signal.aborted) act.take(result.reply.target, result.reply.notes, name);
    }, report);
  };

  // The check waits for a pause in the typing; a newer check replaces it.
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
      }, report);
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

  const found = computed<NotebookTarget[]>(() => {
    const { variables = [], panel = null } = inNotebook.value ?? {};
    const needle = typed.value.trim().toLowerCase();
    const named = variables.filter(({ name }) => name.toLowerCase().includes(needle));
    return panel === null || needle !== "" ? named : [{ name: null, words: panel }, ...named];
  });
  const listed = computed(() => found.value.slice(0, FOUND));

  /**
   * The active option: the first one, unless the typed text is not a token. Then the options are other tokens, and the
   * user has to choose one.
   */
  const active = computed<number>(() => {
    const other = check.value?.text === typed.value && check.value.single === false;
    const count = options.value.length;
    const { at, isFound } = chosen.value ?? { at: other && typed.value !== "" ? -1 : 0, isFound: false };
    // A variable is active only if the user chose it, because typed text means a token.
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
        ${more > 0 ? html`<p>${more} more in the notebook: type part of the name.</p>` : nothing}
        ${(inNotebook.value?.notes ?? []).map((note) => html`<p>${prose(note)}</p>`)}
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
        ${predictions.value === null && !refused.value ? html`<p>reading the model’s predictions …</p>` : nothing}
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
      // Enter means the typed text, not the prediction that is first in the list until the check is answered.
      if (found) read(found.name);
      else if (typed.peek() !== "" && at <= 0 && check.peek()?.text !== typed.peek()) entered.value = true;
      else if (option) act.choose(option.token);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

/** The typed text with a leading space shown as in tokens. */
function shownAs(text: string): string {
  return text.replace(/^ /, "·");
}

function percent(probability: number): string {
  return probability >= 0.0995 ? `${(probability * 100).toFixed(0)} %` : `${(probability * 100).toFixed(1)} %`;
}

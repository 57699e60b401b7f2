// The token picker. It lists the model's top predictions, filters them while the user types, and asks the kernel
// whether the typed text is one token. The picker for the answer also lists whole targets, for example those in
// variables of the notebook.
import { computed, signal as state, untracked } from "@preact/signals-core";
import { html, nothing, render, type TemplateResult } from "lit-html";
import { visible } from "../base/format";
import { legibleSentence, shown } from "../base/legible";
import { child, later, watch } from "../base/lifetime";
import { isOutdated } from "../state/loader";
import { suggestions } from "../state/questions";
import type { Store } from "../state/store";
import { nextToken, nextWords, type Side } from "../state/target";
import type { Client } from "../wire/client";
import type { AnswersReply, Prediction, Target, Token, TokenCheck } from "../wire/protocol.gen";
import { prose } from "./prose";

export interface Choice {
  choose: (token: Token) => void;
  /** Takes a whole target, the notes on it, and the name of its variable; null if it did not come from a variable. */
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

/** A whole target in the list. `take` is called when the user chooses it. */
interface Whole {
  label: string;
  note: string;
  take: () => void;
}

/** The list has at most MAX_TOKENS tokens, and at most MAX_TARGETS targets from the notebook. */
const MAX_TOKENS = 8;
const MAX_TARGETS = 5;
/** The number of token pickers that were created so far. It makes their ids unique. */
let pickers = 0;

export function mountCombobox(
  parent: HTMLElement,
  side: Side,
  store: Store,
  client: Client,
  signal: AbortSignal,
  act: Choice,
): void {
  const id = `rs-combobox-${++pickers}`;
  const typed = state("");
  // The option that the user chose with the arrow keys or the pointer. `index` counts among the tokens, or among the
  // whole targets if `isFound`, so that a chosen target stays chosen when the list of tokens changes.
  const chosen = state<{ index: number; isFound: boolean } | null>(null);
  const predictions = state<Prediction[] | null>(null);
  const check = state<TokenCheck | null>(null);
  const failure = state("");
  const isEnterPending = state(false); // Enter was pressed before the kernel had checked the text
  const inNotebook = state<AnswersReply | null>(null);
  const reading = state<string | null>(null);
  const report = (error: unknown): void => {
    if (signal.aborted) return;
    reading.value = null;
    failure.value = isOutdated(error, store)
      ? "This cache cannot be read any more. The line above says why."
      : error instanceof Error
        ? error.message
        : String(error);
  };

  client
    .latest(
      "suggest",
      // Suggestions are for a single target, so "last" means the last token. If each position has its own target,
      // `store.shown.position` is the position before the last token instead.
      untracked(() => suggestions({ ...store.shown, position: store.locked.value ?? "last" })),
    )
    .then((result) => result && (predictions.value = result.reply.predictions), report);

  if (side === "answer" && !store.isSaved.peek())
    client.latest("answers", { kind: "answers" }).then((result) => result && (inNotebook.value = result.reply), report);

  const read = (name: string | null): void => {
    failure.value = "";
    reading.value = name ?? "the panel";
    client.latest("resolve", { kind: "resolve", name }).then((result) => {
      if (result && !signal.aborted) act.take(result.reply.target, result.reply.notes, name);
    }, report);
  };

  // The check is sent when the user pauses typing. A newer check replaces an older one.
  let pause: AbortController | null = null;
  watch(signal, () => {
    const text = typed.value;
    pause?.abort();
    pause = child(signal);
    if (text === "") return untracked(() => void (check.value = null));
    later(isEnterPending.value ? 0 : 120, pause.signal, () => {
      client.latest("check", { kind: "check", text }).then((result) => {
        if (result?.reply.text !== typed.peek()) return;
        check.value = result.reply;
        const token = result.reply.single ? result.reply.tokens[0] : undefined;
        if (isEnterPending.peek() && token) act.choose(token);
        isEnterPending.value = false;
      }, report);
    });
  });

  const options = computed<Option[]>(() => {
    const text = typed.value;
    const all: Option[] = [];
    const add = (token: Token, note: string): void => {
      if (!all.some((o) => o.token.id === token.id)) all.push({ token, note });
    };
    const checked = check.value?.text === text ? check.value : null;
    if (checked?.single && checked.tokens[0]) add(checked.tokens[0], "as typed");
    for (const token of checked && !checked.single ? checked.suggestions : []) add(token, "one token");
    const needle = text.trim().toLowerCase();
    for (const { token, probability } of predictions.value ?? []) {
      if (all.length >= MAX_TOKENS) break;
      if (needle === "" || token.text.toLowerCase().includes(needle)) add(token, percent(probability));
    }
    for (const token of checked?.single ? checked.suggestions : [])
      if (all.length < MAX_TOKENS) add(token, "one token");
    return all;
  });

  const matchingTargets = computed<NotebookTarget[]>(() => {
    const { variables = [], panel = null } = inNotebook.value ?? {};
    const needle = typed.value.trim().toLowerCase();
    const named = variables.filter(({ name }) => name.toLowerCase().includes(needle));
    return panel === null || needle !== "" ? named : [{ name: null, words: panel }, ...named];
  });
  const listedTargets = computed(() =>
    matchingTargets.value.slice(0, MAX_TARGETS).map(
      ({ name, words }): Whole => ({
        label: name === null ? "as in the panel" : shown(name, 30),
        note: legibleSentence(words),
        take: () => read(name),
      }),
    ),
  );
  /** Whole targets that give each position its own target. */
  const ownTargets = computed(() => {
    if (side !== "answer" || store.facts.value?.has_tokens !== true) return [];
    const all = [nextToken(), nextToken("runner-up")].map(
      (target): Whole => ({
        label: nextWords(target),
        note: target.next_token?.versus ? "difference" : "logit",
        take: () => act.take(target, [], null),
      }),
    );
    return all.filter(({ label }) => label.includes(typed.value.trim().toLowerCase()));
  });
  const wholes = computed(() => [...ownTargets.value, ...listedTargets.value]);

  /**
   * The index of the active option. It is the first option until the user chooses another one. If the typed text is not
   * one token, the options are other tokens, and no option is active (−1) until the user chooses one.
   */
  const active = computed<number>(() => {
    const isNoToken = check.value?.text === typed.value && check.value.single === false;
    const count = options.value.length;
    const { index, isFound } = chosen.value ?? { index: isNoToken && typed.value !== "" ? -1 : 0, isFound: false };
    // A whole target is active only if the user chose it, because typed text means a token.
    return isFound && index < wholes.value.length ? count + index : Math.min(index, count - 1);
  });

  const pick = (index: number): void => {
    const isFound = index >= options.peek().length;
    chosen.value = { index: isFound ? index - options.peek().length : index, isFound };
  };

  watch(signal, () => {
    const list = options.value;
    const targets = listedTargets.value;
    const own = ownTargets.value;
    const more = matchingTargets.value.length - targets.length;
    const index = active.value;
    const option = (
      i: number,
      name: string,
      note: string,
      act: () => void,
    ): TemplateResult => html`<div role="option" id="${id}-${i}" class="rs-option" aria-selected=${i === index}
      @pointerenter=${() => pick(i)} @pointerdown=${(e: Event) => e.preventDefault()} @click=${act}><span
          class="rs-name">${name}</span><small>${note}</small></div>`;
    const checked = check.value?.text === typed.value ? check.value : null;
    const withMessage = checked?.message ? checked : null;
    render(
      html`<input type="text" role="combobox" aria-label="Token for the ${side}" aria-expanded="true"
          aria-autocomplete="list"
          aria-controls=${id} aria-activedescendant=${index >= 0 ? `${id}-${index}` : nothing} autocomplete="off"
              spellcheck="false" autocapitalize="off"
          placeholder="type a token (space first: ·word)" .value=${shownAs(typed.value)} @input=${input}
              @keydown=${keys}>
        <div role="listbox" id=${id} aria-label="Tokens">
          ${list.map((o, i) => option(i, visible(o.token.text), o.note, () => act.choose(o.token)))}
          ${
            own.length === 0
              ? nothing
              : html`<div role="group" class="rs-found" aria-labelledby="${id}-own"><div role="presentation"
                  class="rs-found-title" id="${id}-own">At each position</div>
            ${own.map(({ label, note, take }, i) => option(list.length + i, label, note, take))}</div>`
          }
          ${
            targets.length === 0
              ? nothing
              : html`<div role="group" class="rs-found" aria-labelledby="${id}-found"><div role="presentation"
                  class="rs-found-title" id="${id}-found">From the notebook</div>
            ${targets.map(({ label, note, take }, i) => option(list.length + own.length + i, label, note, take))}</div>`
          }
        </div>
        ${more > 0 ? html`<p>${more} more in the notebook: type part of the name.</p>` : nothing}
        ${(inNotebook.value?.notes ?? []).map((note) => html`<p>${prose(note)}</p>`)}
        ${reading.value === null ? nothing : html`<p>reading ${shown(reading.value, 30)} …</p>`}
        ${
          withMessage
            ? html`<p class=${withMessage.single ? "" : "rs-broken"}>${legibleSentence(withMessage.message)}${
                withMessage.tokens.length > 1
                  ? html` <span>${withMessage.tokens.map((t) => html`<code>${visible(t.text)}</code>`)}</span>`
                  : nothing
              }</p>`
            : nothing
        }
        ${predictions.value === null && !failure.value ? html`<p>reading the model’s predictions …</p>` : nothing}
        ${failure.value ? html`<p class="rs-broken" role="alert">${prose(failure.value)}</p>` : nothing}`,
      parent,
    );
  });
  parent.querySelector("input")?.focus({ preventScroll: true });

  function input(event: Event): void {
    const field = event.target as HTMLInputElement;
    chosen.value = null;
    failure.value = "";
    isEnterPending.value = false;
    typed.value = field.value.replace(/^·/, " ");
    const caret = field.selectionStart;
    field.value = shownAs(typed.value);
    field.setSelectionRange(caret, caret);
  }
  function keys(event: KeyboardEvent): void {
    const tokens = options.peek();
    const count = tokens.length + wholes.peek().length;
    const index = active.peek();
    if (event.key === "ArrowDown") pick(count > 0 ? (index + 1) % count : 0);
    else if (event.key === "ArrowUp") pick(count > 0 ? (Math.max(index, 0) + count - 1) % count : 0);
    else if (event.key === "Escape") act.close(true);
    else if (event.key === "Enter") {
      const option = tokens[index];
      const target = index >= 0 ? wholes.peek()[index - tokens.length] : undefined;
      // Until the kernel has checked the text, a prediction is first in the list. But Enter means the typed text.
      if (target) target.take();
      else if (typed.peek() !== "" && index <= 0 && check.peek()?.text !== typed.peek()) isEnterPending.value = true;
      else if (option) act.choose(option.token);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

/** The typed text, with a leading space written as "·", as in the tokens of the prompt. */
function shownAs(text: string): string {
  return text.replace(/^ /, "·");
}

function percent(probability: number): string {
  return probability >= 0.0995 ? `${(probability * 100).toFixed(0)} %` : `${(probability * 100).toFixed(1)} %`;
}

// Target editor: "logit of [·Mary] minus [·John] ⇄". Each token is a button that opens a combobox.
import { batch, signal as state } from "@preact/signals-core";
import { html, nothing, render, type TemplateResult } from "lit-html";
import { legibleSentence, shown } from "../../base/legible";
import { child, element, watch } from "../../base/lifetime";
import type { Store } from "../../state/store";
import {
  canSwap,
  edit,
  inView,
  isNext,
  isSet,
  label,
  nextToken,
  type Side,
  shared,
  swap,
  targetKey,
} from "../../state/target";
import { begin } from "../../state/trail";
import { mountCombobox } from "../../ui/combobox";
import { closeElsewhere } from "../../ui/popover";
import type { Client } from "../../wire/client";
import type { Target, Token } from "../../wire/protocol.gen";

/** The variable that a target was read from, and messages that are shown while this target (`key`) is selected. */
interface Origin {
  key: string;
  from: string | null;
  words: string[];
}
const MOST_WORDS = 3;

export function mountTarget(parent: HTMLElement, store: Store, client: Client, signal: AbortSignal): void {
  const open = state<Side | null>(null);
  const line = element("div", "rs-target-line");
  const origin = state<Origin | null>(null);
  const said = element("p", "rs-target-said", { "aria-live": "polite" });
  const box = element("div", "rs-popover rs-combobox-place", { hidden: "" });
  parent.append(line, said, box);
  const originOf = (key: string): Origin | null => (origin.value?.key === key ? origin.value : null);

  const chip = (side: Side): TemplateResult => {
    const target = store.base.value;
    const contrasts = inView(target, store.prompt.value);
    const tokens = shared(contrasts, side);
    const mixed = tokens === null;
    // A narrow header hides "each prompt’s", because "mean of 8" next to the target means the same.
    const [whose, what] = !target.own
      ? ["each prompt’s ", side]
      : side === "answer"
        ? ["each prompt’s ", "top token"]
        : ["its ", "second"];
    const text = mixed ? whose + what : tokens.length > 0 ? label(tokens) : "choose …";
    const all = contrasts.map((c, i) => `prompt ${i}: ${label(c[side]) || "none"}`);
    const more = all.length > 24 ? [`… ${all.length - 24} more`] : [];
    // The whole text comes first, because a chip without room cuts it.
    const tip = [text, ...(mixed ? [...all.slice(0, 24), ...more] : [`Change the ${side}`])].join("\n");
    return html`<button type="button" class="rs-chip ${mixed || tokens.length === 0 ? "rs-mixed" : ""}"
        aria-label="${side}: ${text}"
      aria-haspopup="listbox" aria-expanded=${open.value === side} title=${tip} data-side=${side}
      @click=${() => (open.value = open.peek() === side ? null : side)}>${
        mixed
          ? html`<span
          class="rs-whose">${whose}</span>${what}`
          : text
      }</button>`;
  };

  watch(signal, () => {
    const target = store.base.value;
    if (target.direction) {
      const from = originOf(targetKey(target))?.from ?? null;
      const tip =
        from === null
          ? "Set from Python; a new answer replaces it"
          : "A variable of the notebook, as it was when it was chosen";
      return render(
        html`<span>value along</span> <span class="rs-chip rs-fixed"
            title=${tip}>${from === null ? "a direction" : shown(from)}</span>
        <button type="button" class="rs-quiet" data-side="answer"
            @click=${() => (open.value = "answer")}>use a token instead</button>`,
        line,
      );
    }
    if (isNext(target)) {
      const versus = target.next_token?.versus ?? null;
      return render(
        html`<span>logit of</span> <button type="button" class="rs-chip" data-side="answer"
            aria-label="answer: what came next" aria-haspopup="listbox" aria-expanded=${open.value === "answer"}
            title="At each position, the token that really follows. Click to choose another answer"
            @click=${() => (open.value = open.peek() === "answer" ? null : "answer")}><span
              class="rs-came">what came </span>next</button>
          ${
            versus === null
              ? html`<button type="button" class="rs-quiet" data-side="distractor"
                aria-label="minus runner-up" title="At each position, subtract the logit of the most likely other token"
                @click=${() => begin(store, nextToken("runner-up"))}>minus …</button>`
              : html`<span>minus</span> <span class="rs-chip rs-fixed"
                  title="At each position, the most likely other token">runner-up</span>
                <button type="button" class="rs-quiet rs-remove" aria-label="Remove the runner-up"
                  title="Remove the runner-up: attribute the plain logit of what came next"
                  @click=${() => begin(store, nextToken())}>×</button>`
          }`,
        line,
      );
    }
    const some = inView(target, store.prompt.value).some((c) => c.distractor.length > 0);
    const minus = some || open.value === "distractor";
    render(
      html`<span>logit of</span> ${chip("answer")}
        ${
          minus
            ? html`<span>minus</span> ${chip("distractor")}
              ${
                some
                  ? html`<button type="button" class="rs-quiet rs-remove" aria-label="Remove the distractor"
                      title="Remove the distractor: attribute the plain logit"
                  @click=${() => apply("distractor", [])}>×</button>`
                  : nothing
              }
              <button type="button" class="rs-quiet rs-swap" aria-label="Swap answer and distractor"
                  title="Swap answer and distractor in all prompts"
                ?disabled=${!canSwap(target)}
                    @click=${() => begin(store, swap(store.base.peek()))}>⇄</button>`
            : html`<button type="button" class="rs-quiet" data-side="distractor" title="Subtract another token’s logit"
                ?disabled=${!isSet(target)}
              @click=${() => (open.value = "distractor")}>minus …</button>`
        }`,
      line,
    );
  });

  watch(signal, () => {
    const words = originOf(targetKey(store.base.value))?.words ?? [];
    const more = words.length - MOST_WORDS;
    render(
      words.length === 0
        ? nothing
        : html`${words
            .slice(0, MOST_WORDS)
            .map((one) => html`<span>${legibleSentence(one)}</span> `)}${more > 0 ? `… ${more} more ` : nothing}<button
      type="button" class="rs-quiet" aria-label="Dismiss" title="Hide this message"
          @click=${() => (origin.value = null)}>×</button>`,
      said,
    );
    said.hidden = words.length === 0;
  });

  const take = (target: Target, words: string[], from: string | null = null): void => {
    batch(() => {
      begin(store, target);
      origin.value = { key: targetKey(target), from, words };
      open.value = null;
    });
  };
  const apply = (side: Side, tokens: Token[]): void => {
    const { target, notice } = edit(store.base.peek(), store.prompt.peek(), side, tokens);
    take(target, notice === null ? [] : [notice]);
    if (tokens.length === 0) line.querySelector<HTMLElement>(`[data-side="${side}"]`)?.focus();
  };
  const close = (refocus: boolean): void => {
    const side = open.peek();
    open.value = null;
    if (refocus && side) line.querySelector<HTMLElement>(`[data-side="${side}"]`)?.focus();
  };

  let end: AbortController | null = null;
  watch(signal, () => {
    const side = open.value;
    end?.abort();
    end = null;
    box.hidden = side === null;
    if (side === null) return;
    end = child(signal);
    mountCombobox(box, side, store, client, end.signal, {
      choose: (token) => {
        apply(side, [token]);
        line.querySelector<HTMLElement>(`[data-side="${side}"]`)?.focus();
      },
      take: (target, notes, from) => {
        take(target, notes, from);
        line.querySelector<HTMLElement>(`[data-side="${side}"]`)?.focus();
      },
      close,
    });
  });
  closeElsewhere(
    parent,
    () => open.peek() !== null,
    () => close(false),
    signal,
  );
}

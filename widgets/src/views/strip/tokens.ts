// The token strip shows the destination position, and what the head in focus reads there. Hovering over a token
// highlights the row and column of the token in the matrices. A click makes its position the destination; another
// click or Esc returns to the last token.
import { batch, signal as state, untracked } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import { headName, plural, spoken, visible } from "../../base/format";
import { element, watch } from "../../base/lifetime";
import type { Sentence } from "../../base/sentence";
import type { Store } from "../../state/store";
import { scoreIn } from "../../state/target";
import { canSelect, selectPosition } from "../../state/trail";
import { fixedWords } from "../../state/trail-words";
import { prose } from "../../ui/prose";
import { stepAlong } from "../../ui/roving";
import { mountStretch } from "../../ui/token-window";
import type { Client } from "../../wire/client";
import { addedToEach } from "./next-values";
import { nextSentence, predictedWords } from "./next-words";
import { besideWords, mountPairing } from "./pairing";
import type { Focus } from "./reading";
import { sourceSentence } from "./reading-words";
import { paintStrip } from "./strip-attention";
import { mountNextKey, paintNext, showsEach } from "./strip-next";

/** The height of a line of the strip, in pixels. */
const LINE = 30;

export function mountTokens(
  parent: HTMLElement,
  store: Store,
  client: Client,
  focus: Focus,
  signal: AbortSignal,
): void {
  const strip = element("div", "rs-tokens", {
    role: "listbox",
    "aria-label": "Destination position",
    "aria-orientation": "horizontal",
  });
  const beside = element("p", "rs-strip-note", { hidden: "" });
  parent.append(strip);
  const stretch = mountStretch(parent, store, "tokens", signal);
  const paired = element("p", "rs-strip-note rs-pairing", { hidden: "" });
  parent.append(beside, paired);
  mountPairing(paired, store, signal);
  const added = addedToEach(store, client, signal);
  mountNextKey(parent, store, added, signal);
  /** The position that a click on a token selects. If each position has its own target, this is the previous one. */
  const placeOf = (token: number): number => (store.asksEach.value ? token - 1 : token);
  const drawn = state(0);
  let focused: number | null = null;

  watch(signal, () => {
    const facts = store.facts.value;
    const blind = facts?.has_tokens === false;
    const count = facts?.padding ?? 0;
    const left = store.padding.value === "found";
    beside.hidden = !blind && count === 0;
    const said = left
      ? `${plural(count, "token")} treated as padding`
      : `${plural(count, "token")} that may be padding ${count === 1 ? "counts" : "count"} as real`;
    const it = count === 1 ? "it" : "them";
    render(
      html`${
        blind || count === 0
          ? prose("positions only: the cache holds no token ids; pass `tokens=` to see text")
          : nothing
      }
      ${
        count > 0
          ? html`<span class="rs-taken">${said} · </span><button type="button" class="rs-act rs-count-padding"
          @click=${() => store.togglePadding()}>${left ? `count ${it} as real` : `leave ${it} out`}</button>`
          : nothing
      }`,
      beside,
    );
  });

  watch(signal, () => {
    const tokens = store.tokens.value;
    const each = store.asksEach.value ? 1 : 0;
    const destination = store.destination.value === null ? null : store.destination.value + each;
    const locked = store.locked.value === null ? null : store.locked.value + each;
    const answer = store.facts.value?.generated_from ?? null;
    const pairs = store.runs.beside.value;
    const { start, stop } = stretch.shown.value;
    const tabStop = Math.max(start, Math.min(focused ?? destination ?? 0, stop - 1));
    strip.classList.toggle("rs-long", tokens.length > 64);
    render(
      html`${tokens.slice(start, stop).map((token, nth) => {
        const i = start + nth;
        const varies = token.text === "" ? (token.varies ?? []) : [];
        const says = varies.length > 0 ? "prompts differ" : spoken(token.text);
        const classes = [
          "rs-token",
          i === locked ? "rs-locked" : "",
          varies.length > 0 ? "rs-varies" : "",
          token.padding ? "rs-padding" : "",
          pairs !== null && !pairs.has(i) ? "rs-unpaired" : "",
          token.special && !token.padding ? "rs-special" : "",
          i === answer ? "rs-answer" : "",
        ].join(" ");
        const tip =
          varies.length > 0
            ? `position ${i}, prompts differ: ${varies.map(visible).join(" ")} …`
            : `position ${i}${token.padding ? ", padding" : token.special ? ", special token" : ""}${
                i === answer ? "; the answer begins here" : ""
              }`;
        const beside = besideWords(store, i);
        const predicted = each ? predictedWords(store, i - 1) : "";
        const refusal = canSelect(store, i - each) ? "" : `; ${fixedWords(store, i - each)}`;
        return html`<div role="option" class=${classes} data-position=${i} tabindex=${i === tabStop ? 0 : -1}
          aria-selected=${i === destination} aria-disabled=${refusal ? "true" : nothing}
          aria-label="${says}, position ${i}${beside}" title="${tip}${beside}${
            predicted === "" ? "" : `; ${predicted}`
          }${refusal}">${store.tokenText(i)}</div>`;
      })}${tokens.length === 0 ? html`<span class="rs-token rs-varies" aria-hidden="true">…</span>` : nothing}`,
      strip,
    );
    untracked(() => (drawn.value += 1));
  });

  paintStrip(strip, store, focus, drawn, signal);
  paintNext(strip, store, added, drawn, signal);

  // Hovering changes only two tokens, because there may be thousands.
  let lit: Element | null = null;
  watch(signal, () => {
    void drawn.value;
    const at = store.hoveredToken.value;
    lit?.classList.remove("rs-lit");
    lit = at === null ? null : strip.querySelector(`[data-position="${at}"]`);
    lit?.classList.add("rs-lit");
  });

  // Scrolls the strip (never the page) to the destination, and again when the size of the strip changes.
  const laid = state(0);
  const observer = new ResizeObserver(() => (laid.value += 1));
  observer.observe(strip);
  signal.addEventListener("abort", () => observer.disconnect(), { once: true });
  watch(signal, () => {
    const at = store.destination.value === null ? null : store.destination.value + (store.asksEach.value ? 1 : 0);
    void drawn.value;
    void laid.value;
    const option = at === null ? null : strip.querySelector<HTMLElement>(`[data-position="${at}"]`);
    if (!option || strip.scrollHeight <= strip.clientHeight) return;
    const top = option.offsetTop; // relative to the strip
    if (top < strip.scrollTop || top + option.offsetHeight > strip.scrollTop + strip.clientHeight)
      strip.scrollTop = Math.max(0, top - 2 * LINE - 1); // shows whole lines; the last one has the destination
  });

  const positionOf = (event: Event): number | null => {
    const at =
      event.target instanceof Element
        ? event.target.closest<HTMLElement>("[data-position]")?.dataset["position"]
        : undefined;
    return at === undefined ? null : Number(at);
  };
  const onClick = (at: number): string => {
    if (store.asksEach.value && at === store.destination.value) return "the token that is asked about";
    if (at === store.destination.value)
      return at === store.locked.value
        ? `the destination; click again to ${scoreIn(store.target.value) ? "ask at" : "go back to"} the last token`
        : "the destination, the last token";
    if (!canSelect(store, at)) return fixedWords(store, at);
    if (store.asksEach.value) return "click to ask what wrote it";
    const score = scoreIn(store.target.value);
    return score
      ? `click to ask the same of ${headName(score.layer, score.head)} here`
      : "click to read the model here";
  };
  const pointed = state<number | null>(null);
  const light = (at: number | null): void => {
    batch(() => (pointed.value = store.hoveredToken.value = at));
    const reading = focus.reading.peek();
    if (at !== null && reading && !showsEach(store) && (reading.weights[at] ?? 0) > 0)
      store.spot.value = { head: reading.head, destination: reading.destination, source: at };
    if (at === null) store.sentence.value = null;
  };
  // The sentence changes with the destination and the head in focus, unless another view has replaced the sentence.
  let said: { at: number; words: Sentence } | null = null;
  watch(signal, () => {
    const at = pointed.value;
    if (at === null) said = null;
    const token = at === null ? undefined : store.tokens.value[at];
    if (!token || at === null) return;
    const reading = focus.reading.value;
    const words = showsEach(store)
      ? nextSentence(store, at - 1, added.value)
      : reading && at < reading.weights.length
        ? sourceSentence(store, reading, at)
        : [`“${store.tokenName(at)}” at position ${at}`];
    const click = showsEach(store) && !canSelect(store, at - 1) ? "" : ` · ${onClick(placeOf(at))}`;
    untracked(() => {
      if (said?.at === at && store.sentence.value !== said.words) return;
      said = { at, words: click === "" ? words : [...words, click] };
      store.sentence.value = said.words;
    });
  });
  strip.addEventListener("pointerover", (event) => light(positionOf(event)), { signal });
  strip.addEventListener("pointerleave", () => light(null), { signal });
  strip.addEventListener(
    "focusin",
    (event) => {
      focused = positionOf(event);
      light(focused);
    },
    { signal },
  );
  strip.addEventListener("focusout", () => light(null), { signal });
  strip.addEventListener(
    "click",
    (event) => {
      const at = positionOf(event);
      if (at === null) return;
      focused = at;
      selectPosition(store, placeOf(at));
    },
    { signal },
  );
  strip.addEventListener(
    "keydown",
    (event) => {
      const at = positionOf(event);
      if (at === null) return;
      const to = stepAlong(event.key, at, store.tokens.peek().length);
      if (event.key === "Enter" || event.key === " ") selectPosition(store, placeOf(at));
      else if (to !== undefined) goTo(to);
      else return;
      event.preventDefault();
    },
    { signal },
  );

  function goTo(at: number): void {
    stretch.reveal(at);
    const option = strip.querySelector<HTMLElement>(`[data-position="${at}"]`);
    strip.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
    option?.setAttribute("tabindex", "0");
    option?.focus();
  }
}

// The token strip shows the destination position, and what the head in focus reads there. Hovering over a token
// highlights the row and column of the token in the matrices. A click makes its position the destination; another
// click or Esc returns to the last token.
import { batch, signal as state, untracked } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import { headName, spoken, visible } from "../../base/format";
import { element, watch } from "../../base/lifetime";
import type { Sentence } from "../../base/sentence";
import { showsEach } from "../../state/next-tokens";
import { segmentAt } from "../../state/segments";
import { SEGMENTS, type Store } from "../../state/store";
import { lastWords, scoreIn } from "../../state/target";
import { canSelect, selectPosition } from "../../state/trail";
import { fixedWords } from "../../state/trail-words";
import { stepAlong } from "../../ui/roving";
import { mountStretch } from "../../ui/token-window";
import type { Client } from "../../wire/client";
import type { SegmentLabel } from "../../wire/protocol.gen";
import { addedToEach } from "./next-values";
import { nextSentence, predictedWords } from "./next-words";
import { mountPaddingNote } from "./padding-note";
import { besideWords, mountPairing } from "./pairing";
import type { Focus } from "./reading";
import { sourceSentence } from "./reading-words";
import { chip, isOpen, itemsOf, segmentName, toggle, unfoldedPositions } from "./segment-chips";
import { mountSegmentChoice } from "./segment-choice";
import { paintSegments, segmentSentence } from "./segment-paint";
import { wholeReading } from "./segment-whole";
import { paintStrip } from "./strip-attention";
import { featureSentence, paintFeature, showsFeature } from "./strip-feature";
import { readInView } from "./strip-follow";
import { mountNextKey, paintNext } from "./strip-next";

/** More segments than this have short names. */
const MANY_SEGMENTS = 12;
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
  const choice = element("span", "rs-choice rs-segment-choice", { hidden: "" });
  const unfit = element("p", "rs-strip-note rs-unfit", { hidden: "", role: "alert" });
  parent.append(strip, choice);
  mountSegmentChoice(choice, unfit, store, signal);
  const unfolded = unfoldedPositions(store);
  const stretch = mountStretch(parent, store, "tokens", signal, unfolded);
  const paired = element("p", "rs-strip-note rs-pairing", { hidden: "" });
  parent.append(beside, paired, unfit);
  mountPairing(paired, store, signal);
  const added = addedToEach(store, client, signal);
  mountNextKey(parent, store, added, signal);
  /** The position that a click on a token selects. If each position has its own target, this is the previous one. */
  const placeOf = (token: number): number => (store.asksEach.value ? token - 1 : token);
  const drawn = state(0);
  /** Where the focus was last: the position of a token, or a segment. */
  let focused: string | null = null;

  mountPaddingNote(beside, store, signal);

  watch(signal, () => {
    // Until the segments of another prompt are known, the last ones stay.
    const isAwaited = store.segments.value !== null && !store.isMean.value && store.segmentsKnown.value === null;
    if (isAwaited && !store.problems.value.has(SEGMENTS) && strip.hasChildNodes()) return;
    const tokens = store.tokens.value;
    const each = store.asksEach.value ? 1 : 0;
    const destination = store.destination.value === null ? null : store.destination.value + each;
    const locked = store.locked.value === null ? null : store.locked.value + each;
    const answer = store.facts.value?.generated_from ?? null;
    const pairs = store.runs.beside.value;
    const turns = new Map((store.segmentsKnown.value?.turns ?? []).map((turn) => [turn.start, segmentName(turn)]));
    const segments = store.segmentsShown.value;
    const items = itemsOf(store, unfolded.value, stretch.shown.value);
    const keys = items.map((item) => ("position" in item ? String(item.position) : `s${item.index}`));
    const here = segments && destination !== null ? segmentAt(segments, destination) : undefined;
    const stop = [focused, String(destination), here && `s${segments?.indexOf(here)}`, keys[0]].find(
      (key) => typeof key === "string" && keys.includes(key),
    );
    strip.classList.toggle("rs-long", items.length > 64 || segments !== null);
    strip.classList.toggle("rs-many", (segments?.length ?? 0) > MANY_SEGMENTS);
    strip.classList.toggle("rs-folding", segments !== null);
    render(
      html`${items.map((item, nth) => {
        const isTabStop = keys[nth] === stop;
        if ("segment" in item) return chip(store, item, { holds: item.segment === here, isTabStop });
        const i = item.position;
        const token = tokens[i];
        if (!token) return nothing;
        const varies = token.text === "" ? (token.varies ?? []) : [];
        const says = varies.length > 0 ? "prompts differ" : spoken(token.text);
        const classes = [
          "rs-token",
          i === locked ? "rs-locked" : "",
          varies.length > 0 ? "rs-varies" : "",
          token.padding ? "rs-padding" : "",
          pairs !== null && !pairs.has(i) ? "rs-unpaired" : "",
          token.special && !token.padding ? "rs-special" : "",
          i === answer ? "rs-answer" : turns.has(i) && i > 0 ? "rs-turn" : "",
        ].join(" ");
        const tip =
          varies.length > 0
            ? `position ${i}, prompts differ: ${varies.map(visible).join(" ")} …`
            : `position ${i}${token.padding ? ", padding" : token.special ? ", special token" : ""}${
                i === answer ? "; the answer begins here" : turns.has(i) ? `; turn: ${turns.get(i)}` : ""
              }`;
        const beside = besideWords(store, i);
        const predicted = each ? predictedWords(store, i - 1) : "";
        const refusal = canSelect(store, i - each) ? "" : `; ${fixedWords(store, i - each)}`;
        return html`<div role="option" class=${classes} data-position=${i} tabindex=${isTabStop ? 0 : -1}
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
  const whole = wholeReading(store, client, focus, signal);
  paintSegments(strip, store, focus, added, whole, drawn, signal);
  /** The option of a position: its token, or the folded segment that has it. */
  const optionOf = (at: number): HTMLElement | null => {
    const token = strip.querySelector<HTMLElement>(`[data-position="${at}"]`);
    const index = token
      ? -1
      : (store.segmentsShown.peek()?.findIndex(({ start, end }) => start <= at && at < end) ?? -1);
    return token ?? (index < 0 ? null : strip.querySelector<HTMLElement>(`[data-segment="${index}"]`));
  };
  paintFeature(strip, store, drawn, signal);

  // Hovering changes only two tokens, because there may be thousands.
  let lit: Element | null = null;
  watch(signal, () => {
    void drawn.value;
    const at = store.hoveredToken.value;
    lit?.classList.remove("rs-lit");
    lit = at === null ? null : optionOf(at);
    lit?.classList.add("rs-lit");
  });

  // Scrolls the strip (never the page) to the destination, or to what the head in focus reads, and again when the size
  // of the strip changes.
  const laid = state(0);
  const observer = new ResizeObserver(() => (laid.value += 1));
  observer.observe(strip);
  signal.addEventListener("abort", () => observer.disconnect(), { once: true });
  const slider = parent.querySelector<HTMLElement>(":scope > .rs-stretch");
  const read = readInView([strip, ...(slider ? [slider] : [])], store, focus, signal);
  /** Whether the only change is that no token is read any more. Then the strip stays where it is. */
  const onlyLeft = (): ((destination: number | null) => boolean) => {
    let before: [read: number | null, destination: number | null] = [null, null];
    return (destination) => {
      const [readBefore, destinationBefore] = before;
      before = [read.value, destination];
      return readBefore !== null && read.value === null && destination === destinationBefore;
    };
  };
  const [staysInStrip, staysInStretch] = [onlyLeft(), onlyLeft()];
  watch(signal, () => {
    const destination =
      store.destination.value === null ? null : store.destination.value + (store.asksEach.value ? 1 : 0);
    const at = read.value ?? destination;
    void drawn.value;
    if (laid.value === 0) return; // has no size yet: reading one would lay out the page while it is being drawn
    const option = at === null ? null : optionOf(at);
    if (staysInStrip(destination) || !option || strip.scrollHeight <= strip.clientHeight) return;
    const top = option.offsetTop; // relative to the strip
    if (top < strip.scrollTop || top + option.offsetHeight > strip.scrollTop + strip.clientHeight)
      // Shows whole lines. The last visible line has the destination; a token that is read is in the middle.
      strip.scrollTop = Math.max(0, top - (read.value === null ? 2 : 1) * LINE - 1);
  });
  watch(signal, () => {
    const at = read.value ?? store.destination.value;
    if (!staysInStretch(store.destination.value) && at !== null) untracked(() => stretch.reveal(at));
  });

  const positionOf = (event: Event): number | null => {
    const at =
      event.target instanceof Element
        ? event.target.closest<HTMLElement>("[data-position]")?.dataset["position"]
        : undefined;
    return at === undefined ? null : Number(at);
  };
  const segmentOf = (event: Event): SegmentLabel | null => {
    const chosen = event.target instanceof Element ? event.target.closest<HTMLElement>("[data-segment]") : null;
    return (chosen && store.segmentsShown.peek()?.[Number(chosen.dataset["segment"])]) ?? null;
  };
  const onClick = (at: number): string => {
    if (store.asksEach.value && at === store.destination.value) return "the token that is asked about";
    const last = lastWords(store.target.value);
    if (at === store.destination.value)
      return at === store.locked.value
        ? `the destination; click again to ${scoreIn(store.target.value) ? "ask at" : "go back to"} ${last}`
        : `the destination, ${last}`;
    if (!canSelect(store, at)) return fixedWords(store, at);
    if (store.asksEach.value) return "click to ask what wrote it";
    const score = scoreIn(store.target.value);
    return score
      ? `click to ask the same of ${headName(score.layer, score.head)} here`
      : "click to read the model here";
  };
  const pointed = state<number | null>(null);
  const pointedSegment = state<SegmentLabel | null>(null);
  const light = (at: number | null, segment: SegmentLabel | null = null): void => {
    batch(() => {
      pointed.value = store.hoveredToken.value = at;
      pointedSegment.value = segment;
    });
    const reading = focus.reading.peek();
    if (at !== null && reading && !showsEach(store) && (reading.weights[at] ?? 0) > 0)
      store.spot.value = { head: reading.head, destination: reading.destination, source: at };
    if (at === null && segment === null) store.sentence.value = null;
  };
  watch(signal, () => {
    const segment = pointedSegment.value;
    if (!segment) return;
    const words = segmentSentence(store, focus, added.value, whole.value, segment);
    untracked(() => (store.sentence.value = words));
  });
  // The sentence changes with the destination and the head in focus, unless another view has replaced the sentence.
  let said: { at: number; words: Sentence } | null = null;
  watch(signal, () => {
    const at = pointed.value;
    if (at === null) said = null;
    const token = at === null ? undefined : store.tokens.value[at];
    if (!token || at === null) return;
    const reading = focus.said.value;
    const words = showsFeature(store)
      ? featureSentence(store, at)
      : showsEach(store)
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
  strip.addEventListener("pointerover", (event) => light(positionOf(event), segmentOf(event)), { signal });
  strip.addEventListener("pointerleave", () => light(null), { signal });
  strip.addEventListener(
    "focusin",
    (event) => {
      focused = keyOf(event);
      light(positionOf(event), segmentOf(event));
    },
    { signal },
  );
  strip.addEventListener("focusout", () => light(null), { signal });
  strip.addEventListener(
    "click",
    (event) => {
      const [at, segment] = [positionOf(event), segmentOf(event)];
      if (at === null && segment === null) return;
      focused = keyOf(event);
      if (segment) unfold(segment);
      else if (at !== null) selectPosition(store, placeOf(at));
    },
    { signal },
  );
  strip.addEventListener(
    "keydown",
    (event) => {
      const [at, segment] = [positionOf(event), segmentOf(event)];
      if (at === null && segment === null) return;
      const isEntered = event.key === "Enter" || event.key === " ";
      if (segment && isEntered) unfold(segment);
      else if (at !== null && isEntered) selectPosition(store, placeOf(at));
      else if (!(store.segmentsShown.peek() ? goAlong(event) : goFrom(at ?? 0, event.key))) return;
      event.preventDefault();
    },
    { signal },
  );

  function unfold(segment: SegmentLabel): void {
    toggle(store, segment);
    if (isOpen(store, segment)) stretch.reveal(segment.start);
  }
  function keyOf(event: Event): string | null {
    const { dataset } = (event.target instanceof Element && event.target.closest<HTMLElement>("[role=option]")) || {};
    return dataset?.["position"] ?? (dataset?.["segment"] === undefined ? null : `s${dataset["segment"]}`);
  }
  /** Moves the focus by a key among all tokens. Returns false if the key does not move the focus. */
  function goFrom(at: number, key: string): boolean {
    const to = stepAlong(key, at, store.tokens.peek().length);
    if (to === undefined) return false;
    stretch.reveal(to);
    goTo(strip.querySelector<HTMLElement>(`[data-position="${to}"]`));
    return true;
  }
  /** Moves the focus by a key among the chips and the unfolded tokens. */
  function goAlong(event: KeyboardEvent): boolean {
    const options = [...strip.querySelectorAll<HTMLElement>("[role=option]")];
    const at = options.findIndex((option) => event.target instanceof Node && option.contains(event.target));
    const to = stepAlong(event.key, at, options.length);
    if (to === undefined) return false;
    goTo(options[to] ?? null);
    return true;
  }
  function goTo(option: HTMLElement | null): void {
    strip.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
    option?.setAttribute("tabindex", "0");
    option?.focus();
  }
}

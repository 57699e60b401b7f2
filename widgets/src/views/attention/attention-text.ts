// The prompt as text, shaded by attention. One token is active: the locked one, else the one under the pointer, else
// the panel's destination. The view shades the tokens that the active token reads, or those that read it. The size of
// the box does not depend on the text.
import { computed, signal as state, untracked } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import { quoted, spoken } from "../../base/format";
import { element, watch } from "../../base/lifetime";
import type { Sentence } from "../../base/sentence";
import { css, limitOf } from "../../draw/colours";
import { inkOn } from "../../draw/ink";
import { noteChip } from "../../ui/caption";
import { prose } from "../../ui/prose";
import { stepAlong, TabStop } from "../../ui/roving";
import { mountStretch } from "../../ui/token-window";
import type { Direction } from "./attention-data";
import type { AttentionRoom } from "./attention-room";
import { colourOf, NAMES, written } from "./attention-scale";
import { cellSentence, lineWords } from "./attention-words";
import { mountTextChoice } from "./text-choice";
import { readTextLine, type TextLine } from "./text-line";
import { readText, type TextPicture } from "./text-picture";

interface Word {
  node: HTMLElement;
  text: HTMLElement;
  bars: HTMLElement;
}
/** Returns the picture of the text view and the line that the view shows; null if there is no picture. */
export type ReadTextPicture = () => { picture: TextPicture; line: TextLine | null } | null;

export function mountAttentionText(parent: HTMLElement, room: AttentionRoom, signal: AbortSignal): ReadTextPicture {
  const { store, limits } = room;
  const inSight = room.inSight("text");
  const direction = state<Direction>("reads");
  const locked = state<number | null>(null);
  /** The token under the pointer, in this view. */
  const own = state<number | null>(null);
  const token = computed(() => {
    const elsewhere = direction.value === "reads" ? room.hovered.value.row : store.hoveredToken.value;
    return locked.value ?? own.value ?? elsewhere ?? store.destination.value;
  });

  const chips = element("div", "rs-chips", { role: "group", "aria-label": "Heads" });
  const tools = element("div", "rs-text-tools");
  const line = element("p", "rs-text-line");
  const box = element("div", "rs-text-box", {
    role: "listbox",
    "aria-label": "Prompt",
    "aria-orientation": "horizontal",
  });
  parent.append(element("div", "rs-text-head", {}, chips, tools), line);
  const stretch = mountStretch(parent, store, "tokens of the text", signal);
  parent.append(box);

  const choice = mountTextChoice(chips, room, signal);
  const { picture, trouble, waiting } = readText(room, choice.wanted, inSight, signal);

  // --- above the text ------------------------------------------------------------------------------------------------
  watch(signal, () => {
    const button = (name: Direction, label: string, tip: string): unknown =>
      html`<button type="button" aria-pressed=${direction.value === name} title=${tip}
          @click=${() => (direction.value = name)}>${label}</button>`;
    render(
      html`<button type="button" class="rs-quiet rs-clear" ?disabled=${locked.value === null}
          title="Unlock the token (Esc)" @click=${() => (locked.value = null)}>clear</button>
        <div class="rs-switch" role="group"
            aria-label="Direction">${button("reads", "reads", "Shade what the token reads")}${button(
              "read-by",
              "is read by",
              "Shade the tokens that read it",
            )}</div>`,
      tools,
    );
  });
  const textLine = readTextLine(room, picture, token, direction, inSight, (said) => (trouble.value = said), signal);
  watch(signal, () => {
    if (!inSight.value) return;
    const now = textLine.value;
    box.classList.toggle("rs-waiting-text", waiting.value);
    const notes = picture.value?.notes ?? [];
    const hint = trouble.value
      ? ""
      : picture.value
        ? "Hover over a token to see what it reads; click to lock it."
        : "Hover over a head in the map above, pin some, or choose all heads of a layer.";
    const words = now
      ? `${now.shown.name}: ${lineWords(store, now.shown.weighting, now.direction, now.at, now.values, 5)}`
      : hint;
    line.classList.toggle("rs-hint", !now);
    line.title = words;
    render(
      html`${noteChip(store, notes)}${notes.length > 0 ? " " : ""}${
        trouble.value ? html`<span class="rs-text-trouble">${prose(trouble.value)}</span>` : nothing
      }${words}`,
      line,
    );
  });

  // --- the text ------------------------------------------------------------------------------------------------------
  let words: Word[] = [];
  let start = 0;
  let rove = 0;
  const tabStop = new TabStop();
  const built = state(0);
  const wordAt = (position: number): Word | undefined => words[position - start];
  watch(signal, () => {
    if (!inSight.value) return;
    const tokens = store.tokens.value;
    const { start: first, stop } = stretch.shown.value;
    const had = box.contains(box.ownerDocument.activeElement);
    box.replaceChildren();
    start = first;
    words = tokens.slice(first, stop).map((label, nth) => {
      const i = first + nth;
      const text = element("span", "rs-word-text", {}, store.tokenText(i));
      const bars = element("span", "rs-text-bars", { "aria-hidden": "true" });
      const node = element(
        "span",
        `rs-word${label.padding ? " rs-padding" : ""}`,
        { role: "option", tabindex: "-1", "data-position": String(i), "aria-selected": "false", dir: "auto" },
        text,
        bars,
      );
      box.append(node);
      if (label.text.includes("\n")) box.append(element("br"));
      return { node, text, bars };
    });
    rove = Math.max(first, Math.min(rove, stop - 1));
    tabStop.move(wordAt(rove)?.node ?? null);
    if (had) wordAt(rove)?.node.focus();
    untracked(() => {
      if ((locked.peek() ?? 0) >= tokens.length) locked.value = null;
      built.value += 1;
    });
  });
  watch(signal, () => {
    if (!inSight.value) return; // hovering elsewhere paints nothing while this view is hidden
    void built.value;
    const now = textLine.value;
    const at = token.value;
    const kept = locked.value;
    for (const [nth, { node }] of words.entries()) {
      const i = start + nth;
      node.classList.toggle("rs-reading", i === at);
      if ((node.getAttribute("aria-selected") === "true") !== (i === kept))
        node.setAttribute("aria-selected", String(i === kept));
    }
    if (!now) {
      for (const word of words) bare(word);
      return;
    }
    const { shown, values } = now;
    const { weighting } = shown;
    const theme = store.theme.value;
    const limit = limits.of(weighting, limitOf(values));
    const lines = now.parts.map((part) => ({ colour: choice.colour(part.head), values: part.values }));
    // The bars compare the heads with each other; the shade shows the value on the colour scale.
    const tallest = Math.max(...lines.map((l) => limitOf(l.values)));
    for (const [nth, { node, text, bars }] of words.entries()) {
      const i = start + nth;
      const value = values[i] ?? NaN;
      const seen = !Number.isNaN(value);
      const ground = seen ? colourOf(weighting, value, limit, theme) : null;
      text.style.backgroundColor = ground ? css(ground) : "";
      text.style.color = ground ? inkOn(ground) : "";
      const said = store.tokens.peek()[i]?.text ?? "";
      node.setAttribute(
        "aria-label",
        `${said === "" ? store.tokenText(i) : spoken(said)}, position ${i}, ` +
          `${
            seen ? `${NAMES[weighting].toLowerCase()} ${written(weighting, value, store.largest.value)}` : "not seen"
          }`,
      );
      while (bars.childElementCount > lines.length) bars.lastElementChild?.remove();
      while (bars.childElementCount < lines.length) bars.append(element("i"));
      lines.forEach((own, n) =>
        paintBar(
          bars.children[n] as HTMLElement,
          own.colour,
          (own.values[i] ?? 0) / (tallest || 1),
          weighting === "contribution",
        ),
      );
    }
  });
  watch(signal, () => {
    if (inSight.value && picture.value) limits.report("text", picture.value.weighting, picture.value.limit);
    else limits.forget("text");
  });
  // Scrolls the box (never the page) to the destination.
  watch(signal, () => {
    void built.value;
    const node = inSight.value ? wordAt(store.destination.value ?? 0)?.node : undefined;
    if (node && node.offsetTop + node.offsetHeight > box.clientHeight)
      box.scrollTop = node.offsetTop + node.offsetHeight - box.clientHeight + 8;
  });

  // --- gestures ------------------------------------------------------------------------------------------------------
  const at = (event: Event): number | null => {
    const position =
      event.target instanceof Element
        ? event.target.closest<HTMLElement>("[data-position]")?.dataset["position"]
        : undefined;
    return position === undefined ? null : Number(position);
  };
  const light = (position: number | null): void => {
    own.value = position;
    store.hoveredToken.value = position;
    if (position === null) store.sentence.value = null;
  };
  watch(signal, () => {
    const now = textLine.value;
    const position = own.value;
    if (!now || position === null) return;
    const words =
      locked.value === null || position === locked.value
        ? [
            `${now.shown.name}: ` +
              `${lineWords(store, now.shown.weighting, now.direction, now.at, now.values)}${
                locked.value === null ? " · click to lock it" : " · click again to unlock it"
              }`,
          ]
        : pair(now, position);
    untracked(() => (store.sentence.value = words));
  });
  function pair({ shown, at: kept, direction, values, parts }: TextLine, other: number): Sentence {
    const [q, k] = direction === "reads" ? [kept, other] : [other, kept];
    const [first] = parts;
    const attention = shown.parts[0]?.attention;
    const sentence =
      first && attention ? cellSentence(store, attention, first.pane, shown.weighting, first.head, q, k) : null;
    if (sentence && (parts.length === 1 || k > q)) return sentence;
    const each = (row: Float32Array): string => written(shown.weighting, row[other] ?? NaN, store.largest.value);
    const listed = parts.map((part) => `${part.head} ${each(part.values)}`).join(", ");
    return [
      `${shown.name}: ${quoted(store.tokenName(q))} (destination ${q}) reads ${quoted(store.tokenName(k))} ` +
        `(source ${k}): ${NAMES[shown.weighting].toLowerCase()} ${each(values)}${listed ? ` (${listed})` : ""}`,
    ];
  }
  const lock = (position: number): void => void (locked.value = locked.peek() === position ? null : position);

  box.addEventListener("pointerover", (event) => light(at(event)), { signal });
  box.addEventListener("pointerleave", () => light(null), { signal });
  box.addEventListener(
    "focusin",
    (event) => {
      const position = at(event);
      if (position === null) return;
      rove = position;
      tabStop.move(wordAt(rove)?.node ?? null);
      light(position);
    },
    { signal },
  );
  box.addEventListener("focusout", () => light(null), { signal });
  box.addEventListener(
    "click",
    (event) => {
      const position = at(event);
      if (position !== null) lock(position);
    },
    { signal },
  );
  box.addEventListener(
    "keydown",
    (event) => {
      const position = at(event);
      if (position === null) return;
      const to = stepAlong(event.key, position, store.tokens.peek().length);
      if (event.key === "Enter" || event.key === " ") lock(position);
      else if (to !== undefined) {
        stretch.reveal(to);
        wordAt(to)?.node.focus();
      } else return;
      event.preventDefault();
    },
    { signal },
  );
  parent.addEventListener(
    "keydown",
    (event) => {
      if (event.key !== "Escape" || locked.peek() === null) return;
      locked.value = null;
      event.stopPropagation(); // otherwise the panel would unpin heads
    },
    { signal },
  );

  return () => {
    const shown = waiting.peek() ? null : picture.peek();
    return shown && { picture: shown, line: textLine.peek()?.shown === shown ? textLine.peek() : null };
  };
}

function bare({ node, text, bars }: Word): void {
  text.style.backgroundColor = text.style.color = "";
  node.removeAttribute("aria-label");
  bars.replaceChildren();
}

/** Draws a bar up from the bottom. If values have a sign, draws it up or down from the middle. */
function paintBar(bar: HTMLElement, colour: string, share: number, withSign: boolean): void {
  const size = Math.min(1, Math.abs(share) || 0) * (withSign ? 50 : 100);
  const bottom = withSign ? (share < 0 ? 50 - size : 50) : 0;
  bar.style.background = colour;
  bar.style.clipPath = `inset(${100 - bottom - size}% 0 ${bottom}% 0)`;
}

// Two compared runs, head by head: a plot of what each head adds in A (horizontal) and in B (vertical), or of the
// direct and the total effect of each head. A click pins a head; dragging draws a frame and pins the heads in it.
import { batch, computed, signal as state } from "@preact/signals-core";
import { html, nothing, render, svg } from "lit-html";
import { plural, signed } from "../../base/format";
import { element, watch } from "../../base/lifetime";
import { type ReadPicture, shownAs } from "../../export/pictures";
import { attentionOfRuns, COMPARED_HEADS } from "../../state/questions";
import { nearestTo, type Scatter, type Spot, scatterOf, scatterOfEffects, spotOf, within } from "../../state/scatter";
import type { Store } from "../../state/store";
import { alignOffer } from "../../ui/align-offer";
import { mountCaption, mountTrouble } from "../../ui/caption";
import { stepAlong } from "../../ui/roving";
import { measured } from "../../ui/width";
import type { AttentionRoom } from "../attention/attention-room";
import { readWords } from "../heads/read-words";
import type { TabView } from "../tab-view";
import { mountRunAttention } from "./run-attention";
import { RUNS } from "./runs-export";
import { placesOfNames } from "./scatter-name";
import { mountStream } from "./stream";

/** In percent of the plot: how near the pointer must be to a head, and how far it moves before a frame is drawn. */
const REACH = 4;
const DRAGGED = 1.5;
/** The largest number of heads that a frame pins. */
const MOST_FRAMED = 12;
/** The number of heads that have their names next to them: the heads that differ most. */
const NAMED = 5;

type Shows = "heads" | "attention" | "stream";
const SHOWS: [Shows, string, string][] = [
  ["heads", "Heads", "What each head adds in both runs"],
  ["attention", "Attention", "The attention of the pinned heads in both runs, and the difference"],
  [
    "stream",
    "Stream",
    "How the target changes if the stream at a layer and position is replaced. This runs your model, between cells.",
  ],
];

const NOT_SAVED = "The effects of the stream need runs of the model: they are not in a saved page.";

export const runs: TabView = {
  name: "Runs",
  tip: "Two compared runs, or direct and total effects, head by head",
  chapter: (store) => (store.against.peek() === null ? "causes" : "comparing"),
  isThere: ({ against, effect }) => against.value !== null || effect.value !== "direct",
  // The scatter plot shows the comparison of heads, which the charts request.
  requests: ({ shown }) => shown.heads.slice(0, COMPARED_HEADS).flatMap((head) => attentionOfRuns(shown, head) ?? []),
  options: () => [], // a saved page does not show the effects of the stream, so it does not contain them
  mount,
};

function mount(
  parent: HTMLElement,
  controls: HTMLElement,
  { store, client }: AttentionRoom,
  signal: AbortSignal,
): ReadPicture {
  const shows = state<Shows>("heads");
  const views = { heads: element("div"), attention: element("div"), stream: element("div") };
  parent.append(views.heads, views.attention, views.stream);
  const isThere = (name: Shows): boolean => name !== "attention" || store.against.value !== null;
  /** A saved page cannot measure the effects of the stream, because they need runs of the model. */
  const isLeftOut = (name: Shows): boolean => name === "stream" && store.isSaved.value;
  const chosen = computed(() => (isThere(shows.value) && !isLeftOut(shows.value) ? shows.value : "heads"));
  const choose = (name: Shows): void =>
    batch(() => {
      if (isLeftOut(name)) return void (store.sentence.value = [NOT_SAVED]);
      shows.value = name;
      if (name === "stream" && store.effects.stream.state.value !== "done") store.effects.stream.start();
    });
  watch(signal, () => {
    for (const [name] of SHOWS) views[name].hidden = chosen.value !== name;
    render(
      html`<div class="rs-switch" role="group" aria-label="What is compared">${SHOWS.filter(([name]) =>
        isThere(name),
      ).map(
        ([name, text, tip]) => html`<button type="button" title=${isLeftOut(name) ? NOT_SAVED : tip}
          aria-pressed=${chosen.value === name} aria-disabled=${isLeftOut(name) ? "true" : nothing}
          @click=${() => choose(name)}>${text}</button>`,
      )}</div>`,
      controls,
    );
  });
  const read = mountScatter(views.heads, store, signal);
  const shown = (name: Shows) => computed(() => store.tab.value === "runs" && chosen.value === name);
  mountRunAttention(views.attention, store, client, shown("attention"), signal);
  mountStream(views.stream, store, client, shown("stream"), signal);
  return read;
}

function mountScatter(parent: HTMLElement, store: Store, signal: AbortSignal): ReadPicture {
  const caption = element("div", "rs-caption");
  const trouble = element("p", "rs-view-trouble", { role: "note" });
  const field = element("div", "rs-scatter-field", {
    tabindex: "0",
    role: "application",
    "aria-roledescription": "scatter plot",
  });
  const place = element("div", "rs-scatter", {}, field);
  parent.append(caption, element("div", "rs-chart-place", {}, place, trouble));
  const size = measured(place, 350, signal);

  const isCaused = computed(() => store.effectShown.value !== "direct");
  const scatter = computed<Scatter | null>(() => {
    const facts = store.facts.value;
    if (!facts || store.tab.value !== "runs") return null;
    if (isCaused.value) {
      const found = store.effects.heads.found.value;
      return found && scatterOfEffects(found, facts.heads, store.effectShown.value === "estimate");
    }
    const compared = store.runs.of("heads");
    return compared && scatterOf(compared, facts.layers, facts.heads);
  });
  const largest = computed(() => Math.max(scatter.value?.high ?? 0, -(scatter.value?.low ?? 0)));
  mountTrouble(
    trouble,
    place,
    signal,
    () =>
      store.tab.value !== "runs"
        ? null
        : isCaused.value
          ? store.effects.heads.refusal.value
          : (store.runs.reasonNotDrawn("heads") ?? store.reasonNotDrawn("heads")),
    () => alignOffer(store),
  );
  mountCaption(caption, store, signal, () => {
    if (isCaused.value) {
      const found = store.effects.heads.found.value?.reply;
      const [, up] = scatter.value?.axes ?? ["", "total"];
      const count =
        up === "total" && found && found.done < found.total ? ` So far ${found.done} of ${found.total}.` : "";
      const words =
        `What each head adds directly (→) and in total (↑${up === "estimate" ? ", estimated" : ""}). If a head ` +
        `is nearer to zero than the line, the model compensates for a part of what it adds.${count}`;
      return { words, notes: found?.notes ?? [] };
    }
    const compared = store.runs.of("heads");
    const [first, second] = store.runs.names.value ?? ["", ""];
    const read = compared ? ` Of the whole difference, ${readWords(compared)}.` : "";
    return {
      words:
        `What each head adds. → A: ${first}. ↑ B: ${second}. On the line, the same in both; ` +
        `blue is more in B.${read}`,
      notes: compared?.difference.reply.notes ?? [],
    };
  });
  const frame = state<{ from: Spot; to: Spot } | null>(null);
  const words = (name: string): string => {
    const head = scatter.value?.heads.find((one) => one.name === name);
    const [a = "", b = "", difference = ""] = scatter.value?.axes ?? [];
    if (!head) return "";
    const [first, second, value] = [head.first, head.second, head.value].map((one) => signed(one, largest.value));
    return `${a} ${first}, ${b} ${second}, ${difference} ${value}`;
  };

  watch(signal, () => {
    const shown = scatter.value;
    if (!shown) return render(nothing, field);
    const dot = ({ x, y }: Spot): string => `M${x.toFixed(2)} ${y.toFixed(2)}h0`;
    const zero = spotOf(shown, { first: 0, second: 0 });
    const pinned = new Set(store.heads.value);
    const named = shown.heads
      .filter(({ name }, i) => i < NAMED || pinned.has(name))
      .map((head) => ({ name: head.name, at: spotOf(shown, head), isPinned: pinned.has(head.name) }));
    const places = placesOfNames(named, zero, size.value / 100);
    const path = (sign: -1 | 1): string =>
      shown.heads
        .filter(({ value }) => (value < 0 ? -1 : 1) === sign)
        .map((head) => dot(spotOf(shown, head)))
        .join("");
    const ends = [shown.low, shown.high].map((end) => signed(end / 1.06, largest.value));
    render(
      html`<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">
          ${svg`<path class="rs-scatter-zero" d=${`M${zero.x} 0V100M0 ${zero.y}H100`}
              vector-effect="non-scaling-stroke"></path>
            <path class="rs-scatter-same" d="M0 100L100 0" vector-effect="non-scaling-stroke"></path>
            <path class="rs-scatter-heads rs-minus" d=${path(-1)} vector-effect="non-scaling-stroke"></path>
            <path class="rs-scatter-heads rs-plus" d=${path(1)} vector-effect="non-scaling-stroke"></path>`}
        </svg>
        ${named.map(({ name, at: { x, y } }, i) => {
          const place = places[i];
          if (!place) return nothing;
          const { isLeft, down } = place;
          return html`<span class="rs-scatter-name ${isLeft ? "rs-scatter-left" : ""} ${
            pinned.has(name) ? "rs-pinned" : ""
          }" style="left:${x}%;top:calc(${y}% + ${down}px)" aria-hidden="true">${name}</span>`;
        })}
        <span class="rs-scatter-axis rs-scatter-a" aria-hidden="true">${shown.axes[0]} →</span>
        <span class="rs-scatter-axis rs-scatter-b" aria-hidden="true">${shown.axes[1]} ↑</span>
        <span class="rs-scatter-end rs-scatter-low" aria-hidden="true">${ends[0]}</span>
        <span class="rs-scatter-end rs-scatter-high" aria-hidden="true">${ends[1]}</span>`,
      field,
    );
  });

  const mark = element("i", "rs-scatter-mark", { hidden: "" });
  const tip = element("span", "rs-tip rs-scatter-tip", { hidden: "" });
  const brush = element("i", "rs-scatter-brush", { hidden: "" });
  place.append(mark, tip, brush);
  watch(signal, () => {
    const shown = scatter.value;
    const name = store.hoveredHead.value;
    const head = name === null ? undefined : shown?.heads.find((one) => one.name === name);
    mark.hidden = tip.hidden = !head;
    if (!shown || !head) return;
    const { x, y } = spotOf(shown, head);
    mark.style.left = tip.style.left = `${x}%`;
    mark.style.top = tip.style.top = `${y}%`;
    tip.classList.toggle("rs-tip-left", x > 55);
    tip.classList.toggle("rs-tip-below", y < 15);
    tip.replaceChildren(element("b", "", {}, head.name), ` ${words(head.name)}`);
  });
  watch(signal, () => {
    const strongest = (scatter.value?.heads ?? []).slice(0, 3).map(({ name }) => `${name} ${words(name)}`);
    const at = store.hoveredHead.value;
    field.setAttribute(
      "aria-label",
      at !== null && words(at) !== ""
        ? `${at} ${words(at)}`
        : `${isCaused.value ? "Direct and total effect of each head" : "What each head adds in both runs"}. ` +
            `They differ most in ${strongest.join("; ")}. Arrow keys go on from ` +
            "there, Enter pins.",
    );
  });
  watch(signal, () => {
    const between = frame.value;
    brush.hidden = !between;
    if (!between) return;
    const { from, to } = between;
    brush.style.left = `${Math.min(from.x, to.x)}%`;
    brush.style.top = `${Math.min(from.y, to.y)}%`;
    brush.style.width = `${Math.abs(from.x - to.x)}%`;
    brush.style.height = `${Math.abs(from.y - to.y)}%`;
  });

  const spot = (event: PointerEvent): Spot => {
    const { left, top, width, height } = field.getBoundingClientRect();
    return { x: ((event.clientX - left) / (width || 1)) * 100, y: ((event.clientY - top) / (height || 1)) * 100 };
  };
  const under = (event: PointerEvent): string | null => {
    const shown = scatter.peek();
    return shown ? (nearestTo(shown, spot(event), REACH)?.name ?? null) : null;
  };
  let began: Spot | null = null;
  const on = (type: "pointermove" | "pointerdown" | "pointerup", act: (event: PointerEvent) => void): void =>
    field.addEventListener(type, act, { signal });
  on("pointerdown", (event) => {
    if (event.button !== 0) return;
    began = spot(event);
    field.setPointerCapture?.(event.pointerId);
  });
  on("pointermove", (event) => {
    const to = spot(event);
    const dragged = began !== null && Math.hypot(to.x - began.x, to.y - began.y) > DRAGGED;
    if (began && (dragged || frame.peek())) frame.value = { from: began, to };
    else store.hover(under(event));
  });
  on("pointerup", (event) => {
    const between = frame.peek();
    [began, frame.value] = [null, null];
    if (!between) {
      const head = under(event);
      return void (head && store.togglePin(head));
    }
    const shown = scatter.peek();
    const framed = shown ? within(shown, between.from, between.to).map(({ name }) => name) : [];
    const pinned = framed.slice(0, MOST_FRAMED);
    if (pinned.length === 0) return;
    store.heads.value = [...new Set([...store.heads.peek(), ...pinned])];
    const left = framed.length - pinned.length;
    const more = left > 0 ? `, those that differ most; ${left} more are in it` : "";
    store.sentence.value = [`Pinned ${plural(pinned.length, "head")} in the frame${more}.`];
  });
  field.addEventListener("pointercancel", () => ([began, frame.value] = [null, null]), { signal });
  field.addEventListener("pointerleave", () => store.hover(null), { signal });
  field.addEventListener("blur", () => store.hover(null), { signal });
  field.addEventListener(
    "keydown",
    (event) => {
      const heads = scatter.peek()?.heads ?? [];
      const at = heads.findIndex(({ name }) => name === store.hoveredHead.peek());
      if (event.key === "Enter" || event.key === " ") {
        const name = heads[at]?.name;
        if (name) store.togglePin(name);
      } else {
        const to = stepAlong(event.key, at, heads.length);
        if (to === undefined) return;
        store.hover(heads[to]?.name ?? null);
      }
      event.preventDefault();
    },
    { signal },
  );
  return () => scatter.value && shownAs(RUNS, { picture: "runs", ...scatter.value, pinned: store.heads.value });
}

// One attention card: a head's matrix with tokens on both axes, and what each source brings at the destination.
// A preview becomes a pinned card by staying where it is: same element, same picture.
import { computed, type ReadonlySignal, type Signal, signal as state, untracked } from "@preact/signals-core";
import { html, render } from "lit-html";
import { paintBrings } from "../draw/brings";
import { limitOf } from "../draw/colours";
import { paintMatrix } from "../draw/matrix";
import { partOf, type Zoom } from "../draw/zoom";
import { parseHead } from "../format";
import { element, watch } from "../lifetime";
import { isOutdated } from "../loader";
import { type Attention, whyMissing } from "./attention-data";
import type { AttentionRoom } from "./attention-room";
import { colourOf, decimals, NAMES, writtenShort } from "./attention-scale";
import { contributionsAt, lineOf, lineWords, ownDestination } from "./attention-words";
import { mountCursor, type Shown } from "./card-cursor";
import { axisLabels } from "./card-labels";
import { mountCardTitle } from "./card-title";
import { mountZoom } from "./card-zoom";

/** CSS pixels of the matrix where it cannot be measured. */
const SIDE = 264;
const BARS = 38;
let cards = 0;

export interface Card {
  node: HTMLElement;
  head: Signal<string>;
  /** What it shows, once that is what is selected. */
  shown: () => Shown | null;
}

export function createCard(head: string, room: AttentionRoom, inSight: ReadonlySignal<boolean>, signal: AbortSignal): Card {
  const { store, data, limits } = room;
  const lane = `attention ${++cards}`;
  const name = state(head);
  const shown = state<Shown | null>(null);
  const trouble = state<string | null>(null);
  const zoom = state<Zoom | null>(null);
  const large = state(false);
  const side = state(SIDE);

  const title = element("div", "rs-card-title");
  const matrix = element("canvas", "rs-matrix", { tabindex: "0", role: "application", "aria-roledescription": "attention matrix" });
  const overlay = element("div", "rs-overlay");
  const corner = element("div", "rs-axis-from", { "aria-hidden": "true" }, element("span", "", {}, "from (source) →"));
  const sources = element("div", "rs-sources", { "aria-hidden": "true" });
  const destinations = element("div", "rs-destinations", { "aria-hidden": "true" });
  const bars = element("canvas", "rs-brings", { tabindex: "0", role: "application", "aria-roledescription": "bars" });
  const mark = element("div", "rs-overlay");
  const barsLabel = element("div", "rs-brings-label", { "aria-hidden": "true" });
  const to = element("div", "rs-axis-to", { "aria-hidden": "true" }, element("span", "", {}, "to (destination)"));
  const reads = element("p", "rs-reads");
  const field = element("div", "rs-field", {}, matrix, overlay);
  const strip = element("div", "rs-strip-of-sources", {}, bars, mark);
  const picture = element("div", "rs-picture", {}, corner, to, sources, destinations, field, barsLabel, strip, reads);
  const node = element("section", "rs-card", { role: "region" }, title, picture);

  const size = computed(() => shown.value?.attention.size ?? store.facts.value?.positions ?? 0);
  const part = computed(() => partOf(zoom.value, size.value));
  const map = computed(() => shown.value?.attention.maps[shown.value.weighting] ?? new Float32Array(0));
  const own = computed(() => limitOf(map.value));

  // The picture that is there at once, or asked for; the last one stays until then. First of all: it has a way to go.
  watch(signal, () => {
    if (!inSight.value) return;
    const head = name.value;
    const key = data.key(head);
    const weighting = store.weighting.value;
    untracked(() => {
      const put = (attention: Attention): void => {
        shown.value = { attention, head, weighting };
        trouble.value = attention.maps[weighting] ? null : whyMissing(attention);
        node.classList.remove("rs-waiting");
      };
      // A kept picture is drawn at once, and asked for again all the same: the cache may have changed under its name.
      const kept = data.kept(key, weighting);
      if (kept) put(kept);
      else node.classList.add("rs-waiting");
      data.read(lane, head, key, weighting).then(
        (attention) => {
          // Overtaken, or another picture was put from the kept ones meanwhile.
          if (attention && !signal.aborted && data.key(name.peek()) === key && store.weighting.peek() === weighting) put(attention);
        },
        (error: unknown) => {
          if (signal.aborted) return;
          const outdated = isOutdated(error, store);
          const another = shown.peek()?.head !== head;
          if (!outdated) trouble.value = error instanceof Error ? error.message : String(error);
          else if (another) trouble.value = `${head} was not read while that could be done.`;
          // What was refused is not what was there before; and another head's picture must not stand under this one's name.
          if (!outdated || another) shown.value = { attention: { size: size.peek(), maps: {}, brings: null, locked: null, notes: [] }, head, weighting };
          node.classList.remove("rs-waiting");
        },
      );
    });
  });

  watch(signal, () => {
    const at = parseHead(name.value);
    node.setAttribute("aria-label", `Attention ${name.value}`);
    const what = NAMES[shown.value?.weighting ?? "pattern"];
    matrix.setAttribute("aria-label", `${what} of ${name.value}. Arrow keys move through the cells, + and − zoom.`);
    bars.setAttribute("aria-label", `What each source brings through ${name.value} to the ${store.quantity.value}. Arrow keys move from bar to bar.`);
    node.dataset["layer"] = String(at?.layer ?? "");
    node.dataset["head"] = String(at?.head ?? "");
    node.classList.toggle("rs-preview", !store.heads.value.includes(name.value));
    node.classList.toggle("rs-large", large.value);
  });
  mountCardTitle(title, room, { head: name, shown, trouble, part, own, zoom, large }, signal);

  watch(signal, () => {
    if (shown.value && inSight.value) limits.report(lane, shown.value.weighting, own.value);
    else limits.forget(lane);
  });
  signal.addEventListener("abort", () => limits.forget(lane), { once: true });

  // The canvas' size is CSS' alone; what is painted follows it.
  const observer = new ResizeObserver(() => (side.value = Math.round(matrix.clientWidth) || SIDE));
  observer.observe(matrix);
  signal.addEventListener("abort", () => observer.disconnect(), { once: true });

  watch(signal, () => {
    if (!shown.value) return;
    const { weighting } = shown.value;
    const theme = store.theme.value;
    const limit = limits.of(weighting, own.value);
    paintMatrix(matrix, { size: size.value, values: map.value }, side.value, {
      colour: (value) => colourOf(weighting, value, limit, theme),
      write: (value, digits) => writtenShort(weighting, value, digits),
      digits: weighting === "pattern" ? 2 : decimals(own.value),
      widest: own.value,
    }, part.value);
  });

  watch(signal, () => {
    if (!shown.value) return;
    const brings = contributionsAt(shown.value.attention, store, room.row.value);
    const { left, span } = part.value;
    const limit = brings ? limitOf(brings) : 0;
    paintBrings(bars, brings?.subarray(left, left + span) ?? new Float32Array(0), limit, side.value, BARS, store.theme.value);
    // Where only the chosen destination's are known, they are its, whatever is pointed at.
    const row = shown.value.attention.maps.contribution ? room.row.value : ownDestination(shown.value.attention, store);
    const tallest = limit >= 0.0005 ? `±${limit.toFixed(limit >= 0.095 ? 2 : 3)}` : "<0.001";
    const where = row === null ? "the last token" : store.tokenText(row);
    render(brings ? html`<span class=${row === store.destination.value ? "rs-marked" : "rs-lit"} dir="auto">${where}</span>brings ${tallest}` : "", barsLabel);
    barsLabel.title = `What each source brings to the ${store.quantity.value} at “${where}”; the tallest bar is ${tallest}.`;
  });

  watch(signal, () => {
    const row = room.row.value;
    const words = shown.value && map.value.length > 0 && row !== null && row < size.value
      ? lineWords(store, shown.value.weighting, "reads", row, lineOf(map.value, size.value, "reads", row)) : "";
    reads.textContent = reads.title = words;
  });

  watch(signal, () => {
    render(axisLabels(store, part.value, "source", side.value, store.hoveredToken.value), sources);
    render(axisLabels(store, part.value, "destination", side.value, room.pointed.value ?? store.hoveredToken.value), destinations);
  });
  destinations.addEventListener("pointermove", (event) => {
    const box = destinations.getBoundingClientRect();
    const { top, span } = part.peek();
    const row = top + Math.max(0, Math.min(span - 1, Math.floor(((event.clientY - box.top) / box.height) * span)));
    if (room.pointed.peek() === row || row >= size.peek()) return;
    room.pointed.value = row;
    store.sentence.value = [`${name.peek()}: ${reads.textContent}`];
  }, { signal });
  destinations.addEventListener("pointerleave", () => {
    room.pointed.value = null;
    store.sentence.value = null;
  }, { signal });

  mountZoom(matrix, zoom, size, signal);
  mountCursor({ matrix, overlay, bars, mark }, room, shown, part, zoom, signal);

  return { node, head: name, shown: () => (node.classList.contains("rs-waiting") ? null : shown.peek()) };
}

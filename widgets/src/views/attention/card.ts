// One attention card: a head's matrix with tokens on both axes, and below it, bars for the source contributions at the
// destination. When the user pins the head of the preview card, this card becomes the head's own card.
import { computed, type ReadonlySignal, type Signal, signal as state, untracked } from "@preact/signals-core";
import { html, render } from "lit-html";
import { parseHead, plain } from "../../base/format";
import { element, watch } from "../../base/lifetime";
import { limitOf } from "../../draw/colours";
import { paintSourceContributions } from "../../draw/contributions";
import { type Look, paintMatrix } from "../../draw/matrix";
import { covers, cropped, everything, type Plane } from "../../draw/plane";
import { partOf, type Zoom } from "../../draw/zoom";
import { isOutdated } from "../../state/loader";
import type { Reading } from "../../state/reading";
import type { Weighting } from "../../state/store";
import { lastWords } from "../../state/target";
import { fitWords } from "../../ui/fit-words";
import { type Attention, type Pane, whyMissing } from "./attention-data";
import type { AttentionRoom } from "./attention-room";
import { colourOf, decimals, NAMES, writtenShort } from "./attention-scale";
import { lineParts, ownDestination, unmasked } from "./attention-words";
import { mountCardAsk } from "./card-ask";
import { mountCursor, type Seen, type Shown } from "./card-cursor";
import { refine } from "./card-fine";
import { axisLabels } from "./card-labels";
import { readLine } from "./card-line";
import { mountMiniMap } from "./card-map";
import { mountCardNote, mountCardTitle } from "./card-title";
import { mountZoom } from "./card-zoom";

/** The side of the matrix in CSS pixels until it is measured. */
const SIDE = 264;
const BARS = 38;
let cards = 0;

export interface Card {
  node: HTMLElement;
  head: Signal<string>;
  /**
   * What the card shows, for exports; null until the selected picture is drawn. For a short prompt, this is the whole
   * map, even if the card is zoomed.
   */
  seen: () => Seen | null;
}

export function createCard(
  head: string,
  room: AttentionRoom,
  inSight: ReadonlySignal<boolean>,
  signal: AbortSignal,
): Card {
  const { store, data, limits } = room;
  const lane = `attention ${++cards}`;
  const name = state(head);
  const shown = state<Shown | null>(null);
  const trouble = state<string | null>(null);
  const zoom = state<Zoom | null>(null);
  const large = state(false);
  const side = state(SIDE);

  const title = element("div", "rs-card-title");
  const matrix = element("canvas", "rs-matrix", {
    tabindex: "0",
    role: "application",
    "aria-roledescription": "attention matrix",
  });
  const overlay = element("div", "rs-overlay");
  const noted = element("span", "rs-card-noted");
  const from = element("span", "", { "aria-hidden": "true" }, "from (source) →");
  const corner = element("div", "rs-axis-from", {}, noted, from);
  const sources = element("div", "rs-sources", { "aria-hidden": "true" });
  const destinations = element("div", "rs-destinations", { "aria-hidden": "true" });
  const bars = element("canvas", "rs-source-bars", {
    tabindex: "0",
    role: "application",
    "aria-roledescription": "bars",
  });
  const mark = element("div", "rs-overlay");
  const barsLabel = element("div", "rs-source-bars-label", { "aria-hidden": "true" });
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
  /** Whether this is still the selected picture. If not, another request decides what is shown. */
  const isCurrent = (key: string, weighting: Weighting): boolean =>
    !signal.aborted && data.key(name.value) === key && store.weighting.value === weighting;
  const fine = refine(room, lane, shown, part, inSight, isCurrent, (said) => (trouble.value = said), signal);
  const line = readLine(room, lane, shown, inSight, signal);
  /** The parts of the picture that have arrived, the coarse one first. */
  const panes = computed((): Pane[] =>
    shown.value ? [shown.value.attention, ...(fine.pane.value ? [fine.pane.value] : [])] : [],
  );
  const planes = computed((): Plane[] =>
    panes.value.flatMap(({ maps, ...frame }) => {
      const values = shown.value ? maps[shown.value.weighting] : undefined;
      return values ? [{ ...frame, values }] : [];
    }),
  );
  const inView = computed(() => panes.value.findLast((pane) => covers(pane, part.value)) ?? null);
  const look = computed((): Look => {
    const { weighting } = shown.value ?? { weighting: "pattern" };
    const limit = limits.of(weighting, own.value);
    const theme = store.theme.value;
    return {
      colour: (value) => colourOf(weighting, value, limit, theme),
      write: (value, digits) => writtenShort(weighting, value, digits),
      digits: weighting === "pattern" ? 2 : decimals(own.value),
      widest: own.value,
    };
  });

  // Shows the selected picture when it is there; the previous picture stays until then. This watcher comes before the
  // others, so that the request is sent early.
  watch(signal, () => {
    if (!inSight.value) return;
    const head = name.value;
    const key = data.key(head);
    const weighting = store.weighting.value;
    void store.answersAgain.value;
    untracked(() => {
      const put = (attention: Attention): void => {
        shown.value = { attention, head, key, weighting };
        trouble.value = attention.maps[weighting] ? null : whyMissing(attention);
        node.classList.remove("rs-waiting");
      };
      // A kept picture is drawn at once, unless it is coarse and the card is zoomed. `data.read` decides whether it is
      // requested again.
      const kept = data.kept(key, weighting);
      if (kept && (kept.step === 1 || zoom.peek() === null)) put(kept);
      else node.classList.add("rs-waiting");
      Promise.all([data.read(lane, head, key, weighting), fine.ahead(head, key, weighting)]).then(
        ([attention]) => {
          // `attention` is null if a newer request replaced this one.
          if (attention && isCurrent(key, weighting)) put(attention);
        },
        (error: unknown) => {
          if (!isCurrent(key, weighting)) return;
          const outdated = isOutdated(error, store);
          const before = shown.peek();
          const another = before?.key !== key || before.weighting !== weighting;
          if (!outdated) trouble.value = error instanceof Error ? error.message : String(error);
          else if (another) {
            const what = before?.head === head ? "This selection" : head;
            trouble.value = `${what} was not read before the cache became unavailable.`;
          }
          // When the request is refused, the earlier picture must go. And the picture of one head or prompt must never
          // be shown under the name of another.
          const nothing: Attention = {
            ...everything(size.peek()),
            step: 1,
            size: size.peek(),
            maps: {},
            reads: null,
            sourceContributions: null,
            locked: null,
            notes: [],
          };
          if (!outdated || another) shown.value = { attention: nothing, head, key, weighting };
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
    bars.setAttribute(
      "aria-label",
      `What each source contributes through ${name.value} to the ${store.quantity.value}. Arrow keys move ` +
        "from bar to bar.",
    );
    node.dataset["layer"] = String(at?.layer ?? "");
    node.dataset["head"] = String(at?.head ?? "");
    node.classList.toggle("rs-preview", !store.heads.value.includes(name.value));
    node.classList.toggle("rs-large", large.value);
  });
  mountCardNote(noted, store, { head: name, shown }, signal);
  mountCardTitle(title, room, { head: name, shown, trouble, part, pane: inView, own, zoom, large }, signal);

  watch(signal, () => {
    if (shown.value && inSight.value) limits.report(lane, shown.value.weighting, own.value);
    else limits.forget(lane);
  });
  signal.addEventListener("abort", () => limits.forget(lane), { once: true });

  // Only CSS sets the size of the canvas. The painting uses the measured size.
  const observer = new ResizeObserver(() => (side.value = Math.round(matrix.clientWidth) || SIDE));
  observer.observe(matrix);
  signal.addEventListener("abort", () => observer.disconnect(), { once: true });

  watch(signal, () => {
    if (shown.value) paintMatrix(matrix, planes.value, side.value, look.value, part.value);
  });
  mountMiniMap(
    picture,
    computed(() => planes.value[0] ?? null),
    look,
    size,
    part,
    zoom,
    signal,
  );

  // The bars show the source contributions at the active destination. If these are not known, the bars show those that
  // came with the picture: at the locked position, or else at the last one (`asked`).
  const asked = computed(() => (shown.value ? ownDestination(shown.value.attention, store) : null));
  const read = computed(() => {
    const contributions = line.value?.maps.contribution;
    const chosen = asked.value;
    if (!line.value || !contributions || (line.value.token === chosen && shown.value?.attention.sourceContributions))
      return chosen;
    return line.value.token;
  });
  const sourceContributions = computed(() => {
    const { attention } = shown.value ?? {};
    return (
      (read.value === asked.value
        ? (attention?.sourceContributions ?? line.value?.maps.contribution)
        : line.value?.maps.contribution) ?? null
    );
  });
  const tallest = computed(() => (sourceContributions.value ? limitOf(sourceContributions.value) : 0));
  watch(signal, () => {
    if (!shown.value) return;
    const { left, span } = part.value;
    paintSourceContributions(
      bars,
      sourceContributions.value?.subarray(left, left + span) ?? new Float32Array(0),
      tallest.value,
      side.value,
      BARS,
      store.theme.value,
    );
  });
  watch(signal, () => {
    if (!shown.value) return;
    const limit = tallest.value;
    const most = plain(limit, limit);
    const where = read.value === null ? lastWords(store.target.value) : store.tokenName(read.value);
    render(
      sourceContributions.value
        ? html`<span class=${read.value === store.destination.value ? "rs-marked" : "rs-lit"}
            dir="auto">${where}</span>up to ±${most}`
        : "",
      barsLabel,
    );
    barsLabel.title =
      `What each source contributes to the ${store.quantity.value} at “${where}”; the tallest bar is ${most}, ` +
      "up or down.";
  });

  const parts = computed((): string[] => {
    const values = line.value && shown.value ? line.value.maps[shown.value.weighting] : undefined;
    if (!line.value || !values || !shown.value) return [];
    return lineParts(
      store,
      shown.value.weighting,
      "reads",
      line.value.token,
      unmasked(values, "reads", line.value.token),
    );
  });
  const said = computed(() => parts.value.join(""));
  watch(signal, () => fitWords(reads, parts.value));

  watch(signal, () => {
    const { row, column } = room.hovered.value;
    render(axisLabels(store, part.value, "source", side.value, column), sources);
    render(axisLabels(store, part.value, "destination", side.value, row), destinations);
  });
  const labelled = state(false);
  watch(signal, () => {
    const words = said.value;
    if (labelled.value) untracked(() => (store.sentence.value = [`${name.peek()}: ${words}`]));
  });
  destinations.addEventListener(
    "pointermove",
    (event) => {
      const box = destinations.getBoundingClientRect();
      const { top, span } = part.peek();
      const row = top + Math.max(0, Math.min(span - 1, Math.floor(((event.clientY - box.top) / box.height) * span)));
      if (row >= size.peek()) return;
      room.pointed.value = row;
      labelled.value = true;
    },
    { signal },
  );
  destinations.addEventListener(
    "pointerleave",
    () => {
      labelled.value = false;
      room.pointed.value = null;
      store.sentence.value = null;
    },
    { signal },
  );

  mountZoom(matrix, zoom, size, signal);
  const cursor = mountCursor({ matrix, overlay, bars, mark }, room, shown, panes, part, zoom, signal);

  mountCardAsk(field, [matrix, bars], room, shown, cursor, part, signal);

  // The token strip shows what the destination under the pointer reads.
  let followed: Reading | null = null;
  const unfollow = (): void => {
    if (followed !== null && room.followed.peek() === followed) room.followed.value = null;
    followed = null;
  };
  watch(signal, () => {
    const pointedAt = cursor.value !== null || labelled.value;
    const weights = line.value?.maps.pattern;
    if (!pointedAt || !shown.value) return untracked(unfollow);
    if (!line.value || !weights || line.value.token !== room.row.value) return; // loading: the last line stays
    const { token } = line.value;
    followed = {
      head: shown.value.head,
      destination: token,
      weights,
      contributions: read.value === token ? sourceContributions.value : null,
    };
    untracked(() => (room.followed.value = followed));
  });
  signal.addEventListener("abort", unfollow, { once: true });

  const seen = (): Seen | null => {
    const [picture, pane] = [shown.peek(), inView.peek()];
    if (node.classList.contains("rs-waiting") || !picture || !pane) return null;
    if (picture.attention.step === 1) return { ...picture, pane: picture.attention };
    const { frame, take } = cropped(pane, part.peek());
    const maps = Object.fromEntries(Object.entries(pane.maps).map(([what, values]) => [what, take(values)]));
    return { ...picture, pane: { ...frame, maps } };
  };
  return { node, head: name, seen };
}

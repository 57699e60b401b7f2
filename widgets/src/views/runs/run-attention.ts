// The attention of pinned heads in two compared runs: for each head, the matrices of run A, of run B, and of B − A. The
// cell under the pointer, or the one chosen with the arrow keys, is marked in all three matrices.
import { batch, computed, type ReadonlySignal, signal as state } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import { plural } from "../../base/format";
import { element, watch } from "../../base/lifetime";
import { divergingRgb, limitOf, sequentialRgb } from "../../draw/colours";
import { type Look, paintMatrix } from "../../draw/matrix";
import { partOf } from "../../draw/zoom";
import { type ReadPicture, shownAs } from "../../export/pictures";
import { asking } from "../../state/query";
import { attentionOfRuns, COMPARED_HEADS } from "../../state/questions";
import type { Store } from "../../state/store";
import { alignOffer } from "../../ui/align-offer";
import { mountCaption } from "../../ui/caption";
import { prose } from "../../ui/prose";
import { stepAcross } from "../../ui/roving";
import type { Client } from "../../wire/client";
import { ATTENTION_OF_RUNS } from "./run-attention-export";
import { runLabels } from "./run-labels";
import { type Cell, cellSentence, MAPS, placeOf, positionOf, type RunMaps, runMapsOf } from "./run-maps";

/** The side of a matrix in CSS pixels until it is measured. */
const SIDE = 150;
/** With more positions than this, B − A is drawn larger than A and B. */
const MANY = 64;

export function mountRunAttention(
  parent: HTMLElement,
  store: Store,
  client: Client,
  inSight: ReadonlySignal<boolean>,
  signal: AbortSignal,
): ReadPicture {
  const caption = element("div", "rs-caption");
  const rows = element("div", "rs-run-maps");
  parent.append(caption, rows);
  /** The pinned heads; if there are none, the head that was pointed at last. */
  const heads = computed(() => {
    const pinned = store.heads.value;
    if (pinned.length > 0) return pinned.slice(0, COMPARED_HEADS);
    return store.preview.value === null ? [] : [store.preview.value];
  });
  const slots = Array.from({ length: COMPARED_HEADS }, (_, slot) => {
    const head = computed(() => heads.value[slot] ?? null);
    const answer = asking<"compare-attention", RunMaps>(
      `attention of runs ${slot}`,
      store,
      client,
      signal,
      () => (inSight.value && head.value !== null ? attentionOfRuns(store.shown, head.value) : null),
      runMapsOf,
    );
    return { ...answer, head, shown: computed(() => (head.value === null ? null : answer.shown.value)) };
  });
  /** The end of the colour scale that all differences share. */
  const limit = computed(() => Math.max(0, ...slots.map(({ shown }) => limitOf(shown.value?.planes[2].values ?? []))));
  mountCaption(caption, store, signal, () => {
    const more = store.heads.value.length - COMPARED_HEADS;
    const words =
      heads.value.length === 0
        ? "Pin a head to see what it attends to in both runs."
        : `Attention, destination ↓ and source →. Colours of B − A end at ±${limit.value.toFixed(2)}: ` +
          "blue is more in B." +
          (more > 0 ? ` ${plural(more, "more pinned head")} not shown.` : "");
    return { words, notes: [...new Set(slots.flatMap(({ shown }) => shown.value?.notes ?? []))] };
  });
  for (const slot of slots) mountRow(rows, store, { ...slot, limit, inSight }, signal);
  return () => {
    const there = slots.filter(({ head, trouble }) => head.value !== null && trouble.value === null);
    const maps = there.flatMap(({ shown }) => shown.value ?? []);
    // While new maps are requested, the maps on screen may belong to other heads.
    const isDrawn = maps.length > 0 && there.every(({ head, shown }) => shown.value?.head === head.value);
    return isDrawn ? shownAs(ATTENTION_OF_RUNS, { picture: "attention-of-runs", maps }) : null;
  };
}

interface Row {
  head: ReadonlySignal<string | null>;
  /** The maps that are shown. They stay while the maps of another head are requested. */
  shown: ReadonlySignal<RunMaps | null>;
  trouble: ReadonlySignal<string | null>;
  waiting: ReadonlySignal<boolean>;
  limit: ReadonlySignal<number>;
  inSight: ReadonlySignal<boolean>;
}

function mountRow(parent: HTMLElement, store: Store, row: Row, signal: AbortSignal): void {
  const { head, shown, trouble, waiting, limit } = row;
  const name = element("h4", "rs-name");
  const fields = MAPS.map((title) => {
    const canvas = element("canvas", "", { "aria-hidden": "true" });
    const mark = element("i", "rs-run-mark", { hidden: "" });
    return {
      title,
      name: element("figcaption"),
      sources: element("div", "rs-sources", { "aria-hidden": "true" }),
      destinations: element("div", "rs-destinations", { "aria-hidden": "true" }),
      canvas,
      mark,
      field: element("div", "rs-run-field", {}, canvas, mark),
    };
  });
  const maps = element(
    "div",
    "rs-run-row",
    { tabindex: "0", role: "application", "aria-roledescription": "attention matrices" },
    ...fields.map(({ name, sources, destinations, field }) =>
      element("figure", "", {}, name, sources, destinations, field),
    ),
  );
  const said = element("p", "rs-view-trouble", { role: "note" });
  const node = element("section", "rs-run-head", {}, name, maps, said);
  parent.append(node);

  const cell = state<Cell | null>(null);
  const sides = fields.map(() => state(SIDE));
  const observer = new ResizeObserver(() =>
    batch(() => {
      for (const [at, side] of sides.entries()) side.value = fields[at]?.canvas.clientWidth || SIDE;
    }),
  );
  for (const { canvas } of fields) observer.observe(canvas);
  signal.addEventListener("abort", () => observer.disconnect(), { once: true });

  watch(signal, () => {
    node.hidden = head.value === null;
    name.textContent = shown.value?.head ?? head.value ?? "";
    const failed = trouble.value;
    said.hidden = failed === null;
    maps.hidden = failed !== null || shown.value === null;
    render(failed === null ? nothing : html`${prose(failed)}${alignOffer(store)}`, said);
    maps.classList.toggle("rs-run-large", (shown.value?.size ?? 0) > MANY);
    node.classList.toggle("rs-waiting", waiting.value && shown.value?.head !== head.value);
    maps.setAttribute(
      "aria-label",
      `Attention of ${name.textContent} in both runs, and the difference. Arrow keys move through the cells.`,
    );
  });
  watch(signal, () => {
    const names = store.runs.names.value;
    fields.forEach(({ title, name }, at) => {
      name.textContent = name.title = names?.[at] ? `${title}: ${names[at]}` : title;
    });
  });
  watch(signal, () => {
    const found = shown.value;
    if (!found || !row.inSight.value) return;
    const [theme, most] = [store.theme.value, limit.value];
    fields.forEach(({ canvas }, at) => {
      const look: Look = {
        colour: (value) => (at === 2 ? divergingRgb(value, most, theme) : sequentialRgb(value, theme)),
        write: (value, digits) => value.toFixed(digits).replace("-", "−"),
        digits: 2,
        widest: 1,
      };
      const plane = found.planes[at];
      if (plane) paintMatrix(canvas, [plane], sides[at]?.value ?? SIDE, look, partOf(null, found.size));
    });
  });
  watch(signal, () => {
    const [found, at] = [shown.value, cell.value];
    fields.forEach(({ sources, destinations }, i) => {
      const side = sides[i]?.value ?? SIDE;
      if (!found || !row.inSight.value) return;
      render(runLabels(store, found, "source", side, at?.column ?? null), sources);
      render(runLabels(store, found, "destination", side, at?.row ?? null), destinations);
    });
  });
  watch(signal, () => {
    const at = cell.value;
    const size = shown.value?.size ?? 0;
    for (const { mark } of fields) {
      mark.hidden = at === null || size === 0;
      if (!at || size === 0) continue;
      const [left, top, one] = [at.column, at.row, 1].map((count) => `${(count / size) * 100}%`);
      Object.assign(mark.style, { left, top, width: one, height: one });
    }
  });

  const choose = (to: Cell | null): void => {
    const found = shown.peek();
    batch(() => {
      cell.value = to;
      store.hoveredHead.value = to === null ? null : (found?.head ?? null);
      store.hoveredToken.value = to && found ? positionOf(found, to.column) : null;
      store.sentence.value = to === null || !found ? null : cellSentence(store, found, to);
    });
  };
  const under = (event: PointerEvent): Cell | null => {
    const size = shown.peek()?.size ?? 0;
    const found = fields.find(({ field }) => event.target instanceof Node && field.contains(event.target));
    if (!found || size === 0) return null;
    const { left, top, width, height } = found.field.getBoundingClientRect();
    const at = (place: number, extent: number): number =>
      Math.max(0, Math.min(size - 1, Math.floor((place / (extent || 1)) * size)));
    return { row: at(event.clientY - top, height), column: at(event.clientX - left, width) };
  };
  maps.addEventListener("pointermove", (event) => choose(under(event)), { signal });
  maps.addEventListener("pointerleave", () => choose(null), { signal });
  maps.addEventListener("blur", () => choose(null), { signal });
  maps.addEventListener(
    "keydown",
    (event) => {
      const size = shown.peek()?.size ?? 0;
      const found = shown.peek();
      const begin = { row: found ? placeOf(found, store.destination.peek()) : 0, column: 0 };
      const now = cell.peek();
      const to = stepAcross(event, now ?? begin, size, size);
      if (!to || size === 0) return;
      event.preventDefault();
      choose(now ? to : begin);
    },
    { signal },
  );
}

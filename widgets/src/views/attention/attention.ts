// The attention tab: matrices side by side, the prompt as text, or thumbnails of all heads.

import { element, watch } from "../../base/lifetime";
import { everything } from "../../draw/plane";
import { type ReadPicture, type ShownPicture, shownAs } from "../../export/pictures";
import type { Presentation, Store } from "../../state/store";
import { isInside } from "../../state/target";
import { inOne, inSmall } from "../../state/view-questions";
import type { TabView } from "../tab-view";
import { mountAllHeads } from "./all-heads";
import { mountCards } from "./attention-cards";
import { mountAttentionControls } from "./attention-controls";
import { ATTENTION } from "./attention-export";
import type { AttentionMap, AttentionPicture } from "./attention-picture";
import type { AttentionRoom } from "./attention-room";
import { mountAttentionText, type ReadTextPicture } from "./attention-text";
import type { Seen } from "./card-cursor";
import { mountReadAhead } from "./read-ahead";

export const attention: TabView = {
  name: "Attention",
  tip: "Where heads look, and what they contribute",
  chapter: (store) => {
    if (isInside(store.target.peek())) return "why";
    return (store.facts.peek()?.positions ?? 0) > LONG ? "long-prompts" : "panel";
  },
  requests: (scene) => (scene.shown.presentation === "all" ? inSmall(scene) : []),
  options: (scene) => (scene.shown.presentation === "text" ? inOne(scene) : []),
  mount,
};

/** Longer prompts are drawn down-sampled. */
const LONG = 512;

function mount(parent: HTMLElement, controls: HTMLElement, room: AttentionRoom, signal: AbortSignal): ReadPicture {
  const { store } = room;
  const places: Record<Presentation, HTMLElement> = {
    matrix: element("div", "rs-cards"),
    text: element("div", "rs-attention-text"),
    all: element("div", "rs-all-heads"),
  };
  parent.append(...Object.values(places));
  watch(signal, () => {
    for (const [name, place] of Object.entries(places)) place.hidden = store.presentation.value !== name;
  });

  mountAttentionControls(controls, room, signal);
  const cards = mountCards(places.matrix, room, signal);
  const text = mountAttentionText(places.text, room, signal);
  const enlarged = mountAllHeads(places.all, room, signal);
  mountReadAhead(room, room.inSight("matrix", "text", "all"), signal);

  return () => {
    const presentation = store.presentation.peek();
    const shown = text();
    if (presentation === "text")
      return shown ? asPicture(store, shown.picture.weighting, ofText(store, shown), shown.picture.notes) : null;
    const all = (presentation === "matrix" ? cards() : enlarged()).filter(
      ({ pane, weighting }) => pane.maps[weighting],
    );
    return all[0]
      ? asPicture(
          store,
          all[0].weighting,
          all.map((one) => ofCard(store, one)),
          all.flatMap(({ attention }) => attention.notes),
        )
      : null;
  };
}

// --- for exports -----------------------------------------------------------------------------------------------------
function asPicture(
  store: Store,
  weighting: AttentionPicture["weighting"],
  maps: AttentionMap[],
  notes: string[],
): ShownPicture {
  const [ownRange, pool] = [store.ownRange.peek(), store.pool.peek()];
  return shownAs(ATTENTION, { picture: "attention", weighting, maps, ownRange, pool, notes: [...new Set(notes)] });
}

function ofCard(store: Store, { head, attention, pane }: Pick<Seen, "head" | "attention" | "pane">): AttentionMap {
  return {
    name: head,
    value: store.headValue(head),
    ...pane,
    sourceContributions: attention.sourceContributions?.subarray(pane.columns.start, pane.columns.stop) ?? null,
  };
}

/** The maps of the text view, for exports. For a long prompt, only the line that the view shows. */
function ofText(store: Store, { picture, line }: NonNullable<ReturnType<ReadTextPicture>>): AttentionMap[] {
  const { parts, name, heads, weighting, size, values, step } = picture;
  const [only] = parts.length === 1 ? parts : [];
  if (step > 1) {
    if (!line) return [];
    const span = { start: line.at, stop: line.at + 1 };
    const frame =
      line.direction === "read-by"
        ? { rows: everything(size).rows, columns: span }
        : { rows: span, columns: everything(size).columns };
    const lineValues = line.values.map((value) => (Number.isNaN(value) ? 0 : value));
    return [
      {
        name,
        ...(only ? {} : { of: heads }),
        value: only ? store.headValue(only.head) : null,
        ...frame,
        step: 1,
        maps: { [weighting]: lineValues },
        sourceContributions: null,
      },
    ];
  }
  if (only) return [ofCard(store, { head: only.head, attention: only.attention, pane: only.attention })];
  return [
    {
      name,
      of: heads,
      value: null,
      ...everything(size),
      step: 1,
      maps: { [weighting]: values },
      sourceContributions: null,
    },
  ];
}

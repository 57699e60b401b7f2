// The tab "segments". A map shows which segment of the prompt reads which, by the head in focus. A list has the heads
// through which one segment reads another most.
import { computed } from "@preact/signals-core";
import { html, render } from "lit-html";
import { element, watch } from "../../base/lifetime";
import { type ReadPicture, shownAs } from "../../export/pictures";
import { segmentHeads, segmentMap } from "../../state/questions";
import type { Weighting } from "../../state/store";
import { mountCaption, mountTrouble } from "../../ui/caption";
import type { AttentionRoom } from "../attention/attention-room";
import { meaningOf, NAMES, WEIGHTINGS } from "../attention/attention-scale";
import type { TabView } from "../tab-view";
import { type SegmentCell, segmentData } from "./segment-data";
import { mountSegmentGrid } from "./segment-grid";
import { mountSegmentHeads } from "./segment-heads";
import { SEGMENT_MAP } from "./segments-export";

export const segments: TabView = {
  name: "Segments",
  tip: "Which segments of the prompt heads read",
  chapter: () => "segments",
  isThere: ({ segments, isMean }) => segments.value !== null && !isMean.value,
  requests: (scene) => [
    ...[segmentHeads(scene) ?? []].flat(),
    ...scene.shown.heads.flatMap((head) => segmentMap(scene, head) ?? []),
  ],
  options: () => [],
  mount,
};

function mount(
  parent: HTMLElement,
  controls: HTMLElement,
  { store, client }: AttentionRoom,
  signal: AbortSignal,
): ReadPicture {
  const { head, map, ranked, choose } = segmentData(store, client, signal);
  const caption = element("p", "rs-caption");
  const grid = element("div", "rs-segment-map");
  const heads = element("div", "rs-segment-heads");
  const picture = element("div", "rs-segment-view", {}, grid, heads);
  const refusal = element("p", "rs-view-trouble", { role: "note" });
  parent.append(caption, element("div", "rs-view-place", {}, picture, refusal));
  /** The cell that the heads on screen are ranked by. */
  const cell = computed((): SegmentCell | null => {
    const reply = ranked.shown.value?.reply;
    return reply ? { destination: reply.destination, source: reply.source } : null;
  });
  mountSegmentGrid(grid, store, map.shown, cell, choose, signal);
  mountSegmentHeads(heads, store, ranked.shown, signal);
  mountTrouble(refusal, picture, signal, () => {
    const count = store.segmentsShown.value?.length ?? 0;
    if (count === 1) return "There is only one segment, so none can read another one.";
    return ranked.trouble.value ?? (head.value === null ? null : map.trouble.value);
  });
  watch(signal, () => {
    grid.hidden = head.value === null || map.shown.value === null;
    const isOld = map.shown.value !== null && map.shown.value.head !== head.value;
    grid.classList.toggle("rs-waiting", map.waiting.value && isOld);
    heads.classList.toggle("rs-waiting", ranked.waiting.value);
  });
  mountCaption(caption, store, signal, () => {
    const shown = map.shown.value;
    if (head.value === null || !shown)
      return { words: "Point at a head to see which segments it reads.", notes: ranked.shown.value?.reply.notes ?? [] };
    const how =
      shown.weighting === "contribution"
        ? `what the reading adds to the ${store.quantity.value}, summed over both segments`
        : `${NAMES[shown.weighting].toLowerCase()}, summed over the segment that is read, mean over the one that reads`;
    return { words: `What each segment ↓ reads of each segment → by ${shown.head}: ${how}.`, notes: shown.notes };
  });
  watch(signal, () => {
    const weighting = store.weighting.value;
    render(
      html`<div class="rs-switch" role="group" aria-label="Weighting">${WEIGHTINGS.map(
        (name: Weighting) => html`<button type="button" aria-pressed=${weighting === name}
            title=${meaningOf(name, store)} @click=${() => (store.weighting.value = name)}>${NAMES[name]}</button>`,
      )}</div>`,
      controls,
    );
  });
  return () => {
    const shown = map.trouble.value === null && head.value !== null ? map.shown.value : null;
    return shown && shown.head === head.value && store.segmentsShown.value
      ? shownAs(SEGMENT_MAP, { picture: "segments", map: shown })
      : null;
  };
}

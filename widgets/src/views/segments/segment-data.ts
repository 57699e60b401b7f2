// The data of the tab "segments": which segments the head in focus reads, and which heads read a segment.
import { computed, type ReadonlySignal, signal as state, untracked } from "@preact/signals-core";
import { headName } from "../../base/format";
import { watch } from "../../base/lifetime";
import { type Answered, asking } from "../../state/query";
import { segmentHeads, segmentMap } from "../../state/questions";
import type { Store, Weighting } from "../../state/store";
import { type Client, float32 } from "../../wire/client";
import type { SegmentHeadsReply, SegmentLabel } from "../../wire/protocol.gen";

/** A cell of the map; `destination` is null in the last row, which is about all positions after the source. */
export interface SegmentCell {
  destination: number | null;
  source: number;
}

export interface SegmentMap {
  head: string;
  weighting: Weighting;
  segments: readonly SegmentLabel[];
  meaning: string;
  notes: string[];
  /** [destination, source] */
  values: Float32Array;
  /** [source]: what all later positions read on average; NaN for the last segment. */
  later: Float32Array;
}

export interface SegmentHeads {
  reply: SegmentHeadsReply;
  weighting: Weighting;
  values: Float32Array;
}

export interface SegmentData {
  /** The head in focus: pointed at or pinned last. */
  head: ReadonlySignal<string | null>;
  map: Answered<SegmentMap>;
  ranked: Answered<SegmentHeads>;
  /** Ranks the heads by a cell. At first, they are ranked by how the last segment reads the one before it. */
  choose: (cell: SegmentCell) => void;
}

export function segmentData(store: Store, client: Client, signal: AbortSignal): SegmentData {
  const cell = state<SegmentCell | null>(null);
  const key = computed(() => JSON.stringify(store.segmentsShown.value));
  watch(signal, () => {
    void key.value;
    untracked(() => (cell.value = null));
  });
  const isThere = computed(() => store.tab.value === "segments" && (store.segmentsShown.value?.length ?? 0) > 1);
  const head = computed(() => store.preview.value ?? store.heads.value.at(-1) ?? null);
  const scene = () => {
    const facts = store.facts.value;
    return isThere.value && store.settled.value && facts ? { shown: store.shown, facts } : null;
  };
  const map = asking<"segment-map", SegmentMap>(
    "segment map",
    store,
    client,
    signal,
    () => {
      const about = scene();
      return about && head.value !== null ? segmentMap(about, head.value) : null;
    },
    ({ reply, buffers }, { weighting = "pattern" }) => ({
      head: headName(reply.layer, reply.head),
      weighting,
      segments: reply.segments,
      meaning: reply.meaning,
      notes: reply.notes,
      values: float32(buffers[0]),
      later: float32(buffers[2]),
    }),
  );
  const ranked = asking<"segment-heads", SegmentHeads>(
    "segment heads",
    store,
    client,
    signal,
    () => {
      const about = scene();
      return about && segmentHeads(about, cell.value);
    },
    ({ reply, buffers }, { weighting = "pattern" }) => ({ reply, weighting, values: float32(buffers[0]) }),
  );
  return { head, map, ranked, choose: (chosen) => void (cell.value = chosen) };
}

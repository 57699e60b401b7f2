// The tokens that the head in focus reads at the destination, and what each contributes. The token strip and the
// sentence show this in every tab.
import { computed, type ReadonlySignal, signal as state, untracked } from "@preact/signals-core";
import { watch } from "../../base/lifetime";
import { isOutdated } from "../../state/loader";
import type { Reading } from "../../state/reading";
import type { Store } from "../../state/store";
import { READING } from "../attention/attention-data";
import type { AttentionRoom } from "../attention/attention-room";
import { ownDestination } from "../attention/attention-words";

export interface Focus {
  /** The head in focus: the one that was pointed at or pinned last. */
  head: ReadonlySignal<string | null>;
  /** What the head in focus reads. The previous reading stays until the next one comes. */
  reading: ReadonlySignal<Reading | null>;
  /** The same for sentences; null while the reading belongs to another head or selection. */
  said: ReadonlySignal<Reading | null>;
  /** What the strip shows: the row of a card while the user points at that row, else `reading`. */
  strip: ReadonlySignal<Reading | null>;
  /** Whether `strip` still belongs to another head, row or selection. */
  waiting: ReadonlySignal<boolean>;
  /** A sentence that says why there is no reading; null if there is one, or if it is still loading. */
  trouble: ReadonlySignal<string | null>;
}

export function mountReading(room: AttentionRoom, signal: AbortSignal): Focus {
  const { store, data } = room;
  const { head, fallsBack } = focus(store, signal);
  const reading = state<Reading | null>(null);
  const trouble = state<string | null>(null);
  /** The selection that the reading belongs to. */
  const read = state("");
  const put = (found: Reading | null, why: string | null = null, of = ""): void => {
    read.value = of;
    reading.value = store.reading.value = found;
    trouble.value = why;
  };

  watch(signal, () => {
    const name = head.value;
    if (name === null) return untracked(() => put(null));
    const key = data.key(name);
    const weighting = store.weighting.value;
    void store.answersAgain.value;
    untracked(() => {
      const show = (attention: Parameters<typeof ownDestination>[0]): void => {
        const { reads, sourceContributions } = attention;
        const destination = ownDestination(attention, store);
        const found = reads && { head: name, destination, weights: reads, contributions: sourceContributions };
        put(found, null, key);
      };
      const kept = data.kept(key, weighting);
      const left = fallsBack();
      if (kept) show(kept);
      if (kept && left) return; // this head is in focus only because another head was unpinned
      data.read(READING, name, key, weighting).then(
        (attention) => {
          if (attention && !signal.aborted && head.peek() === name && data.key(name) === key) show(attention);
        },
        (error: unknown) => {
          if (signal.aborted || head.peek() !== name || data.key(name) !== key) return;
          if (store.weighting.peek() !== weighting) return;
          if (!isOutdated(error, store)) put(null, error instanceof Error ? error.message : String(error));
          else if (read.peek() !== key) put(null); // it must not appear under the name of another head or prompt
        },
      );
    });
  });
  const strip = computed(() => room.followed.value ?? reading.value);
  const isEarlier = computed(() => head.value === null || read.value !== data.key(head.value));
  const waiting = computed(() => {
    const followed = room.followed.value;
    if (followed) return followed.destination !== room.row.value;
    return reading.value !== null && isEarlier.value;
  });
  const said = computed(() => (isEarlier.value ? null : reading.value));
  return { head, reading: computed(() => reading.value), said, strip, waiting, trouble: computed(() => trouble.value) };
}

/** The head that was pointed at or pinned last; and whether it is in focus only because another head was unpinned. */
function focus(store: Store, signal: AbortSignal): { head: ReadonlySignal<string | null>; fallsBack: () => boolean } {
  const head = state<string | null>(null);
  let [pinned, back]: [readonly string[], boolean] = [[], false];
  watch(signal, () => {
    const heads = store.heads.value;
    const added = heads.findLast((name) => !pinned.includes(name));
    back = added === undefined && heads.length < pinned.length;
    pinned = heads;
    head.value = added ?? store.preview.peek() ?? heads.at(-1) ?? null;
  });
  watch(signal, () => {
    const preview = store.preview.value;
    back = false;
    head.value = preview ?? untracked(() => store.heads.value.at(-1)) ?? null;
  });
  const fallsBack = (): boolean => {
    const was = back;
    back = false; // true only once: for another prompt or position, the kernel must be asked
    return was;
  };
  return { head, fallsBack };
}

// Refines a card's picture of a long prompt: while the picture is zoomed, smaller blocks of the visible part are
// requested. The coarse picture stays below them: it is visible until they come, and where they do not cover it.
import { type ReadonlySignal, signal as state, untracked } from "@preact/signals-core";
import { watch } from "../../base/lifetime";
import { covers, type Frame, finer, length, stepOf } from "../../draw/plane";
import type { Part } from "../../draw/zoom";
import { isOutdated } from "../../state/loader";
import type { Weighting } from "../../state/store";
import type { Attention, Pane } from "./attention-data";
import type { AttentionRoom } from "./attention-room";
import type { Shown } from "./card-cursor";

interface Fine {
  /** The key and the weighting of the picture that `pane` belongs to. */
  of: string;
  pane: Pane;
}

export interface Refined {
  /** The finer part of the shown picture; null if there is none. */
  pane: ReadonlySignal<Pane | null>;
  /** Requests the visible part of the next picture before it is shown, so that no coarse picture appears in between. */
  ahead: (head: string, key: string, weighting: Weighting) => Promise<void>;
}

export function refine(
  room: AttentionRoom,
  lane: string,
  shown: ReadonlySignal<Shown | null>,
  part: ReadonlySignal<Part>,
  inSight: ReadonlySignal<boolean>,
  isCurrent: (key: string, weighting: Weighting) => boolean,
  trouble: (said: string) => void,
  signal: AbortSignal,
): Refined {
  const { store, data } = room;
  const fine = state<Fine | null>(null);
  const pane = state<Pane | null>(null);
  /** The request in flight. */
  let coming: { of: string; frame: Frame } | null = null;
  const name = (key: string, weighting: Weighting): string => `${key} ${weighting}`;

  watch(signal, () => {
    const picture = shown.value;
    pane.value = picture && fine.value?.of === name(picture.key, picture.weighting) ? fine.value.pane : null;
  });
  const ask = async (head: string, key: string, weighting: Weighting, size: number, step: number): Promise<void> => {
    const wanted = finer(part.peek(), size, step);
    if (!wanted) return;
    const asked = {
      of: name(key, weighting),
      frame: { ...wanted, step: stepOf(length(wanted.rows), length(wanted.columns)) },
    };
    coming = asked;
    try {
      const found = await data.part(`${lane} part`, head, weighting, wanted.rows, wanted.columns);
      if (found && !signal.aborted) fine.value = { of: name(key, weighting), pane: found };
    } catch (error) {
      if (isCurrent(key, weighting) && !isOutdated(error, store))
        trouble(error instanceof Error ? error.message : String(error));
    } finally {
      if (coming === asked) coming = null;
    }
  };
  watch(signal, () => {
    const picture = shown.value;
    const now = part.value;
    if (!picture || !inSight.value || picture.attention.step === 1) return;
    const { head, key, weighting, attention } = picture;
    if (!isCurrent(key, weighting)) return; // another picture is loading
    const enough = (frame: Frame): boolean => covers(frame, now) && frame.step <= stepOf(now.span, now.span);
    const of = name(key, weighting);
    if (fine.value?.of === of && enough(fine.value.pane)) return;
    if (coming?.of === of && enough(coming.frame)) return;
    untracked(() => void ask(head, key, weighting, attention.size, attention.step));
  });

  return {
    pane,
    ahead: async (head, key, weighting) => {
      const before: Attention | undefined = shown.peek()?.attention;
      if (before && before.step > 1) await ask(head, key, weighting, before.size, before.step);
    },
  };
}

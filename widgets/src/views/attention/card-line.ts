// What the active destination reads, with a value for each cell. If the map has single cells, the line is a part of
// it; otherwise the line is requested. The previous line of the same picture stays until the reply comes.
import { computed, type ReadonlySignal, signal as state, untracked } from "@preact/signals-core";
import { watch } from "../../base/lifetime";
import type { AttentionRoom } from "./attention-room";
import { type Line, lineIn } from "./attention-words";
import type { Shown } from "./card-cursor";

export function readLine(
  room: AttentionRoom,
  lane: string,
  shown: ReadonlySignal<Shown | null>,
  inSight: ReadonlySignal<boolean>,
  signal: AbortSignal,
): ReadonlySignal<Line | null> {
  const { data } = room;
  const found = state<{ key: string; line: Line } | null>(null);
  watch(signal, () => {
    const picture = shown.value;
    const row = room.row.value;
    if (!picture || row === null || row >= picture.attention.size) return void (found.value = null);
    const { attention, head, key, weighting } = picture;
    const there = lineIn(attention, "reads", row);
    if (there) return void (found.value = { key, line: there });
    if (!inSight.value || data.key(head) !== key) return; // another picture is loading
    untracked(() => {
      const kept = data.keptLine(head, weighting, "reads", row);
      if (kept) return void (found.value = { key, line: { token: row, maps: kept } });
      data.line(`${lane} row`, head, weighting, "reads", row).then(
        (maps) => {
          const isCurrent = shown.peek() === picture && room.row.peek() === row;
          if (maps && !signal.aborted && isCurrent) found.value = { key, line: { token: row, maps } };
        },
        () => undefined, // the request for the picture reports the same error
      );
    });
  });
  return computed(() => (found.value && found.value.key === shown.value?.key ? found.value.line : null));
}

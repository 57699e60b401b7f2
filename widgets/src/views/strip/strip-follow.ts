// Which token of a long prompt the strip brings into view: the one through which the head in focus adds most, or else
// the one that it reads most. Without such a head, it is the destination.
import { type ReadonlySignal, signal as state, untracked } from "@preact/signals-core";
import { child, later, watch } from "../../base/lifetime";
import { showsEach } from "../../state/next-tokens";
import type { Store } from "../../state/store";
import type { Focus } from "./reading";
import { mostTelling } from "./reading-words";
import { showsFeature } from "./strip-feature";

/** The strip moves only when a head, or a row of its attention, stays in focus this long: it does not flicker. */
const REST_MS = 300;

/** Returns the position; null if it is the destination. After a gesture in `places`, the strip does not move. */
export function readInView(
  places: HTMLElement[],
  store: Store,
  focus: Focus,
  signal: AbortSignal,
): ReadonlySignal<number | null> {
  const wanted = state<number | null>(null);
  let rest = child(signal);
  /** Whether the user has pointed at a head. A panel that opens with a pinned head shows the destination. */
  let isAsked = false;
  watch(signal, () => {
    isAsked ||= store.hoveredHead.value !== null;
    const reading = !isAsked || showsEach(store) || showsFeature(store) ? null : focus.strip.value;
    rest.abort();
    rest = child(signal);
    const at = reading && untracked(() => mostTelling(store, reading));
    if (at === wanted.peek()) return;
    later(REST_MS, rest.signal, () => void (wanted.value = at));
  });
  const keep = (): void => {
    rest.abort();
    wanted.value = null;
  };
  for (const place of places)
    for (const gesture of ["wheel", "pointerdown", "keydown", "input"])
      place.addEventListener(gesture, keep, { signal, passive: true });
  return wanted;
}

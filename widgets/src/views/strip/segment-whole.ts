// While no head is in focus, a folded strip shows what all heads together contribute through each segment.
import { computed, type ReadonlySignal } from "@preact/signals-core";
import { frameOf } from "../../draw/plane";
import { asking } from "../../state/query";
import { blend } from "../../state/questions";
import type { Store } from "../../state/store";
import { isNext, isSet } from "../../state/target";
import type { Client } from "../../wire/client";
import { unpacked } from "../attention/attention-data";
import type { Focus } from "./reading";

export interface Whole {
  destination: number;
  /** [source]: what all heads together move from this position, in logits. */
  contributions: Float32Array;
}

export function wholeReading(
  store: Store,
  client: Client,
  focus: Focus,
  signal: AbortSignal,
): ReadonlySignal<Whole | null> {
  const isShown = computed(
    () =>
      focus.head.value === null &&
      store.segmentsShown.value !== null &&
      !store.isSaved.value && // a saved page has no reply to this request
      isSet(store.target.value) &&
      !isNext(store.target.value), // each destination has its own target
  );
  const { shown } = asking<"blend", Whole>(
    "segments of all heads",
    store,
    client,
    signal,
    () => {
      const at = store.destination.value;
      if (!isShown.value || at === null) return null;
      return blend(store.shown, null, "contribution", { rows: { start: at, stop: at + 1 } });
    },
    ({ reply, buffers }) => {
      const frame = frameOf(reply);
      return { destination: frame.rows.start, contributions: unpacked(reply.part, buffers[0], frame) };
    },
  );
  return computed(() => {
    const found = isShown.value ? shown.value : null;
    return found?.destination === store.destination.value ? found : null;
  });
}

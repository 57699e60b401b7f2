// A view's request to the kernel: sent again whenever it changes, and only while the view is visible. The last reply
// stays until the next reply or failure arrives. If the cache or the kernel is lost, the reply stays, or comes back, in
// the selection that it belongs to.
import { computed, type ReadonlySignal, signal as state, untracked } from "@preact/signals-core";
import { watch } from "../base/lifetime";
import type { Ask, Client, Kind, Result } from "../wire/client";
import { isOutdated, isRunFirst } from "./loader";
import type { Store } from "./store";

export interface Answered<T> {
  shown: ReadonlySignal<T | null>;
  /** The message of the failure, if the last request failed. */
  trouble: ReadonlySignal<string | null>;
  waiting: ReadonlySignal<boolean>;
}

/**
 * Sends the request that `question` returns, whenever it has changed. `question` reads signals, and returns null while
 * there is nothing to request.
 */
export function asking<K extends Kind, T>(
  lane: string,
  store: Store,
  client: Client,
  signal: AbortSignal,
  question: () => Extract<Ask, { kind: K }> | null,
  read: (result: Result<K>, ask: Extract<Ask, { kind: K }>) => T,
): Answered<T> {
  const shown = state<T | null>(null);
  const trouble = state<string | null>(null);
  const waiting = state(0);
  let last: { selection: string; value: T } | null = null;
  const asked = computed(() => {
    const ask = question();
    const other = ask?.kind === "compare-attention" ? store.runs.otherKey.value : "";
    return ask && `${store.dataKey.value} ${store.answersAgain.value} ${other} ${JSON.stringify(ask)}`;
  });
  watch(signal, () => {
    if (asked.value === null) {
      client.leave(lane);
      return;
    }
    untracked(() => {
      const ask = question();
      if (ask === null) return;
      waiting.value += 1;
      const selection = `${store.ref.peek()?.id ?? ""} ${JSON.stringify(ask)}`;
      client
        .latest<K>(lane, ask)
        .finally(() => (waiting.value -= 1))
        .then(
          (result) => {
            if (result === null || signal.aborted) return; // replaced by a newer request
            const value = read(result, ask);
            last = { selection, value };
            [trouble.value, shown.value] = [null, value];
          },
          (error: unknown) => {
            if (signal.aborted) return;
            const isLost = isOutdated(error, store);
            shown.value = isLost && last?.selection === selection ? last.value : null;
            if (!isLost)
              trouble.value = isRunFirst(error) ? null : error instanceof Error ? error.message : String(error);
          },
        );
    });
  });
  return { shown, trouble, waiting: computed(() => waiting.value > 0) };
}

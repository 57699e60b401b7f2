// Makes the run of the model without some heads, when the user asks for it. For a restored selection, the view only
// shows that the run has not been made yet.
import { computed, untracked } from "@preact/signals-core";
import { child, watch } from "../base/lifetime";
import { type Ask, type Client, RequestFailed, type Result } from "../wire/client";
import { againstKey } from "./comparison";
import { isOutdated } from "./loader";
import { without } from "./questions";
import type { Store } from "./store";
import { type Behind, inTurns, NoTurns } from "./turns";

export function makeRuns(store: Store, client: Client, signal: AbortSignal): void {
  const { isRunning, isMissing, refusal, behind, replayed, notes, made, compared, starts } = store.runs.whatIf;
  const asked = computed(() => {
    const ask = without(store.shown);
    return ask && `${store.dataKey.value} ${againstKey(ask.against)}`;
  });
  const take = ({ reply }: Result<"without">): boolean => {
    [replayed.value, notes.value] = [reply.replayed, reply.notes];
    return true;
  };
  const make = async (ask: Extract<Ask, { kind: "without" }>, ended: AbortSignal): Promise<void> => {
    isRunning.value = true;
    store.computing.value += 1;
    try {
      await inTurns<"without">(client, ask, take, (what: Behind | null) => (behind.value = what), ended);
      if (ended.aborted) return;
      isMissing.value = false;
      made.value += 1;
    } catch (error) {
      if (ended.aborted) return;
      const isRefused = error instanceof RequestFailed || error instanceof NoTurns;
      if (!isRefused || isOutdated(error, store)) isMissing.value = true;
      else refusal.value = error.message;
    } finally {
      store.computing.value -= 1;
      if (!ended.aborted) [isRunning.value, behind.value] = [false, null];
    }
  };

  let [before, started]: [string | null, number] = [null, 0];
  let present = child(signal);
  watch(signal, () => {
    const key = asked.value;
    const starting = starts.value !== started;
    started = starts.value;
    untracked(() => {
      if (key === before && (!starting || isRunning.value)) return;
      const had = before !== null;
      before = key;
      present.abort();
      present = child(signal);
      isRunning.value = isMissing.value = false;
      refusal.value = behind.value = null;
      [replayed.value, notes.value] = ["", []];
      const ask = without(store.shown);
      // This request makes the kernel drop the run, which may be as large as the cache.
      if (!ask && had && !store.isSaved.value) client.quietly({ kind: "without", against: {} }).catch(() => undefined);
      if (ask && starting && !store.isSaved.value) void make(ask, present.signal);
    });
  });

  // If there is a comparison, the run exists. Then the kernel only reports how the run was checked, and does not run
  // the model.
  watch(signal, () => {
    const there = compared.value;
    const ask = without(store.shown);
    if (!ask || !there || againstKey(there) !== againstKey(ask.against) || isRunning.value) return;
    untracked(() => {
      if (replayed.value !== "" || store.isSaved.value) return;
      const { signal: ended } = present;
      client.quietly<"without">(ask).then(
        (result) => void (ended.aborted || take(result)),
        () => undefined,
      );
    });
  });
}

// Asks the kernel for effects. Measuring begins only when the user asks for it, and ends when the selection changes.
import { computed, untracked } from "@preact/signals-core";
import { child, watch } from "../base/lifetime";
import { type Ask, type Client, float32, RequestFailed, type Result } from "../wire/client";
import { againstKey } from "./comparison";
import type { Effects, Found } from "./effects";
import { isOutdated } from "./loader";
import type { Store } from "./store";
import { targetKey } from "./target";
import { inTurns, NoTurns } from "./turns";

type EffectsAsk = Extract<Ask, { kind: "effects" }>;

interface Wanted {
  /** The request for the selection; null while no effect is in view. */
  question: () => EffectsAsk | null;
  /** Whether the picture in view needs no more runs. */
  isEnough: (found: Found) => boolean;
  /** Whether nobody can see the view. Then measuring ends. */
  isHidden: () => boolean;
}

/** The values in a reply. If a buffer is empty, none of its values is known yet. */
function foundOf({ reply, buffers }: Result<"effects">, store: Store): Found {
  const { layers = 0, heads = 0, positions = 0 } = store.facts.peek() ?? {};
  const count = layers * (reply.of === "stream" ? positions : heads);
  const values = (buffer: DataView | undefined): Float32Array =>
    buffer?.byteLength === count * 4 ? float32(buffer) : new Float32Array(count).fill(NaN);
  const [total, direct, estimate] = buffers;
  return { reply, total: values(total), direct: values(direct), estimate: values(estimate) };
}

/**
 * Requests the values that are known. After the user starts measuring, it requests runs until all values are measured,
 * or the picture in view needs no more.
 */
export function measure(effects: Effects, store: Store, client: Client, wanted: Wanted, signal: AbortSignal): void {
  const { found, state, refusal, behind, starts, stops } = effects;
  const asked = computed(() => {
    const ask = wanted.question();
    if (ask === null) return null;
    const other = ask.against ? store.runs.otherKey.value : "";
    const against = ask.against ? againstKey(ask.against) : "";
    return `${store.dataKey.value} ${other} ${JSON.stringify({ ...ask, target: targetKey(ask.target), against })}`;
  });

  const failed = (error: unknown): void => {
    behind.value = null;
    // Only a refusal is shown here. If the kernel or the cache was lost, the reason is shown once for all views.
    const isRefused = error instanceof RequestFailed || error instanceof NoTurns;
    if (!isRefused || isOutdated(error, store)) return void (state.value = "stopped");
    refusal.value = error.message;
    state.value = "refused";
  };
  const know = async (ask: EffectsAsk, ended: AbortSignal, stop = false): Promise<void> => {
    try {
      // A saved picture has the reply to the request of questions.ts, which has no `measure` and no `stop`.
      const result = await client.quietly<"effects">(store.isSaved.peek() ? ask : { ...ask, measure: false, stop });
      if (ended.aborted) return;
      // While the kernel runs the model, its reply may lack the earlier values. Then they stay.
      if (result.reply.total > 0 || !found.peek()) found.value = foundOf(result, store);
      state.value = result.reply.state === "done" ? "done" : "stopped";
    } catch (error) {
      if (!ended.aborted) failed(error);
    }
  };
  const run = async (ask: EffectsAsk, ended: AbortSignal): Promise<void> => {
    state.value = "measuring";
    refusal.value = null;
    const take = (result: Result<"effects">): boolean => {
      const now = foundOf(result, store);
      found.value = now;
      return !wanted.isHidden() && !wanted.isEnough(now);
    };
    try {
      await inTurns<"effects">(client, ask, take, (what) => (behind.value = what), ended);
      if (ended.aborted) return;
      behind.value = null;
      const last = found.peek()?.reply.state;
      if (last === "waiting") await know(ask, ended);
      else state.value = last === "done" ? "done" : "stopped";
    } catch (error) {
      if (!ended.aborted) failed(error);
    }
  };

  let [before, started, stopped, latest]: [string | null, number, number, EffectsAsk | null] = [null, 0, 0, null];
  let present = child(signal);
  watch(signal, () => {
    const key = asked.value;
    const [starting, stopping] = [starts.value !== started, stops.value !== stopped];
    [started, stopped] = [starts.value, stops.value];
    untracked(() => {
      const ask = wanted.question();
      const wasMeasuring = effects.isMeasuring.value;
      const isSame = key === before;
      if (isSame && (wasMeasuring ? !stopping : !starting)) return;
      present.abort();
      present = child(signal);
      behind.value = null;
      if (!isSame) effects.forget();
      // This request makes the kernel end the runs for the previous selection.
      if (!isSame && wasMeasuring && latest)
        client.quietly({ ...latest, measure: false, stop: true }).catch(() => undefined);
      [before, latest] = [key, ask];
      if (!ask) return;
      if (starting && !store.isSaved.value) return void run(ask, present.signal);
      const isStopped = wasMeasuring && isSame;
      if (isStopped) state.value = "stopped";
      void know(ask, present.signal, isStopped);
    });
  });
}

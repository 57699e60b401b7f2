// Asks the kernel for effects. Measuring begins only when the user asks for it. It pauses while another selection is in
// view, or while nobody can see the view, and resumes by itself when the user comes back.
import { computed, untracked } from "@preact/signals-core";
import { child, later, watch } from "../base/lifetime";
import { type Ask, type Client, float32, RequestFailed, type Result } from "../wire/client";
import { againstKey } from "./comparison";
import type { Effects, Found } from "./effects";
import { isOutdated } from "./loader";
import type { Store } from "./store";
import { isNext, targetKey } from "./target";
import { inTurns, NoTurns } from "./turns";

type EffectsAsk = Extract<Ask, { kind: "effects" }>;

interface Wanted {
  /** The request for the selection; null while no effect is in view. */
  question: () => EffectsAsk | null;
  /** Whether the picture in view needs no more runs. */
  isEnough: (found: Found) => boolean;
  /** Whether nobody can see the view. Then measuring pauses. */
  isHidden: () => boolean;
}

/** How often a paused view looks whether it can be seen again. */
const LOOKS_AGAIN_MS = 500;

/** The key of what is shown, and of the runs that it needs. */
interface Key {
  shown: string;
  runs: string;
}

/** The values in a reply. If a buffer is empty, none of its values is known yet. */
function foundOf({ reply, buffers }: Result<"effects">, ask: EffectsAsk, store: Store): Found {
  const { layers = 0, heads = 0, positions = 0 } = store.facts.peek() ?? {};
  const count = layers * (reply.of === "stream" ? positions : heads);
  const values = (buffer: DataView | undefined): Float32Array =>
    buffer?.byteLength === count * 4 ? float32(buffer) : new Float32Array(count).fill(NaN);
  const [total, direct, estimate] = buffers;
  const isPutIn = ask.replaced_by === "other";
  return { reply, total: values(total), direct: values(direct), estimate: values(estimate), isPutIn };
}

/**
 * Requests the values that are known. After the user starts measuring, it requests runs until all values are measured,
 * or the picture in view needs no more.
 */
export function measure(effects: Effects, store: Store, client: Client, wanted: Wanted, signal: AbortSignal): void {
  const { found, state, refusal, behind, starts, stops } = effects;
  const asked = computed<Key | null>(() => {
    const ask = wanted.question();
    if (ask === null) return null;
    const other = ask.against ? store.runs.otherKey.value : "";
    const against = ask.against ? againstKey(ask.against) : "";
    const key = (prompt: number | null): string =>
      `${store.dataKey.value} ${other} ${JSON.stringify({ ...ask, prompt, target: targetKey(ask.target), against })}`;
    const prompt = ask.prompt ?? null;
    // Each run is of all prompts at once. But the next token is a target of its own in each prompt.
    return { shown: key(prompt), runs: key(isNext(ask.target) ? prompt : null) };
  });
  /** The runs that the user asked for and did not stop, and that are not done. */
  const unfinished = new Set<string>();

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
      if (result.reply.total > 0 || !found.peek()) found.value = foundOf(result, ask, store);
      state.value = result.reply.state === "done" ? "done" : "stopped";
    } catch (error) {
      if (!ended.aborted) failed(error);
    }
  };
  const resume = (ask: EffectsAsk, runs: string, ended: AbortSignal): void => {
    if (!wanted.isHidden()) return void (unfinished.delete(runs) && run(ask, runs, ended));
    later(LOOKS_AGAIN_MS, ended, () => resume(ask, runs, ended));
  };
  const run = async (ask: EffectsAsk, runs: string, ended: AbortSignal): Promise<void> => {
    state.value = "measuring";
    refusal.value = null;
    let isPaused = false;
    const take = (result: Result<"effects">): boolean => {
      const now = foundOf(result, ask, store);
      found.value = now;
      const isEnough = wanted.isEnough(now);
      isPaused = !isEnough && wanted.isHidden();
      return !isEnough && !isPaused;
    };
    try {
      await inTurns<"effects">(client, ask, take, (what) => (behind.value = what), ended);
      if (ended.aborted) return;
      behind.value = null;
      const last = found.peek()?.reply.state;
      if (last === "waiting") await know(ask, ended);
      else state.value = last === "done" ? "done" : "stopped";
      if (last !== "waiting" || !isPaused || ended.aborted) return;
      unfinished.add(runs);
      resume(ask, runs, ended);
    } catch (error) {
      if (!ended.aborted) failed(error);
    }
  };

  let [before, started, stopped, latest]: [Key | null, number, number, EffectsAsk | null] = [null, 0, 0, null];
  let answers = store.answersAgain.peek();
  let present = child(signal);
  watch(signal, () => {
    const key = asked.value;
    const [starting, stopping] = [starts.value !== started, stops.value !== stopped];
    [started, stopped] = [starts.value, stops.value];
    const answersAgain = store.answersAgain.value !== answers;
    answers = store.answersAgain.value;
    untracked(() => {
      const ask = wanted.question();
      const wasMeasuring = effects.isMeasuring.value;
      const isSame = key?.shown === before?.shown;
      const isContinued = !isSame && wasMeasuring && key?.runs === before?.runs;
      if (isSame && (wasMeasuring ? !stopping : !starting)) {
        if (answersAgain && ask && !wasMeasuring) void know(ask, present.signal);
        return;
      }
      present.abort();
      present = child(signal);
      behind.value = null;
      if (!isSame) effects.forget();
      if (!isSame && !isContinued && wasMeasuring && latest && before) {
        // This request makes the kernel end the runs for the previous selection.
        client.quietly({ ...latest, measure: false, stop: true }).catch(() => undefined);
        unfinished.add(before.runs);
      }
      [before, latest] = [key, ask];
      if (!ask || !key) return;
      const isResumed = (!isSame || starting) && unfinished.delete(key.runs);
      if ((starting || isContinued || isResumed) && !store.isSaved.value)
        return void run(ask, key.runs, present.signal);
      const isStopped = wasMeasuring && isSame;
      if (isStopped) state.value = "stopped";
      void know(ask, present.signal, isStopped);
    });
  });
}

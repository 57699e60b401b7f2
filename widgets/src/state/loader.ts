// Asks the kernel for what the selection needs and puts the answers into the store. The last picture stays until then.
import { computed, untracked } from "@preact/signals-core";
import { watch } from "../base/lifetime";
import { type Client, float32, RequestFailed, type Result } from "../wire/client";
import type { Attribute } from "../wire/protocol.gen";
import { type Attribution, NEURONS, SCORES, type Store } from "./store";
import { isSet, targetKey } from "./target";

/**
 * Whether a request failed because of what has become of the cache or its kernel: then the last picture stays, and what
 * is the matter is said once for all views, not by each of them.
 */
export function isOutdated(error: unknown, store: Store): boolean {
  if (!(error instanceof RequestFailed)) return false;
  if (error.code === "lost" || error.code === "not-saved") return true; // the latter is snapshot.ts’s
  const outdated = (error.code === "gone" || error.code === "changed") && store.ref.peek() !== null;
  if (outdated) store.outdated.value += 1;
  return outdated;
}

/** A decomposition, as its reply brought it. */
export function attributionOf({ reply, buffers }: Result<"attribute">): Attribution {
  const numbers = (at: number, there: boolean): Float32Array | null => (there ? float32(buffers[at]) : null);
  const each = reply.per_prompt ?? false;
  return {
    reply,
    rows: float32(buffers[0]),
    std: numbers(1, buffers.length > 1),
    perPrompt: numbers(2, each),
    constants: numbers(3, each),
  };
}

export function load(store: Store, client: Client, signal: AbortSignal): void {
  const problem = (lane: string, message: string | null): void => {
    const problems = new Map(untracked(() => store.problems.value));
    if (message === null ? problems.delete(lane) : problems.set(lane, message)) store.problems.value = problems;
  };
  const run = <T>(lane: string, reply: Promise<T | null>, put: (result: T) => void, count = store.computing): void => {
    count.value += 1;
    const done = (): void => void (count.value -= 1);
    reply.finally(done).then(
      (result) => {
        if (result === null || signal.aborted) return; // overtaken by a newer request
        put(result);
        problem(lane, null);
      },
      (error: unknown) => {
        if (signal.aborted || isOutdated(error, store)) return;
        problem(lane, error instanceof Error ? error.message : String(error));
      },
    );
  };
  const now = <T>(body: () => T): T => untracked(body);

  watch(signal, () => {
    void store.source.value; // a renamed or exchanged cache is described again
    now(() => run("describe", client.latest("describe", { kind: "describe" }), (r) => (store.facts.value = r.reply)));
  });

  watch(signal, () => {
    void store.source.value;
    const prompt = store.prompt.value;
    now(() =>
      run("tokens", client.latest("tokens", { kind: "tokens", prompt }), (r) => (store.tokens.value = r.reply.tokens)),
    );
  });

  watch(signal, () => {
    void store.source.value;
    if (isSet(store.target.value)) return now(() => problem("target", null));
    if (store.ref.value !== null) return; // who looks at caches of a kernel chooses for each of them
    now(() => run("target", client.latest("target", { kind: "target" }), (r) => (store.target.value = r.reply.target)));
  });

  const asked = computed(() => targetKey(store.target.value));
  const attribution = (lane: string, by: Attribute["by"], put: (a: Attribution) => void, usesNorm: boolean): void => {
    watch(signal, () => {
      void store.source.value;
      void asked.value; // the same target sent back by Python is not asked for again
      const target = store.target.peek();
      const prompt = store.prompt.value;
      const position = store.chosenPosition.value;
      const norm = usesNorm ? store.norm.value : "frozen";
      if (!isSet(target)) return;
      now(() =>
        run(
          lane,
          client.latest(lane, { kind: "attribute", by, target, prompt, position, norm }),
          ({ reply, buffers }) => put(attributionOf({ reply, buffers })),
        ),
      );
    });
  };
  attribution("heads", "head", (a) => (store.headRows.value = a), false);
  attribution("layers", "layer", (a) => (store.layerRows.value = a), false);
  attribution("lens", "accumulated", (a) => (store.lens.value = a), true);

  watch(signal, () => {
    const score = store.score.value;
    if (score === null) return; // not in view
    void store.source.value;
    const prompt = store.prompt.value;
    now(() =>
      run(
        SCORES,
        client.latest(SCORES, { kind: "scores", score, prompt }),
        ({ reply, buffers }) => (store.scores.value = { reply, values: float32(buffers[0]) }),
        store.computingScores,
      ),
    );
  });

  watch(signal, () => {
    if (store.ranking.value !== "neurons") return; // not in view
    void store.source.value;
    void asked.value;
    const target = store.target.peek();
    const [layer, k, prompt, position] = [
      store.layer.value,
      store.topK.value,
      store.prompt.value,
      store.chosenPosition.value,
    ];
    if (!isSet(target)) return;
    now(() =>
      run(
        NEURONS,
        client.latest(NEURONS, { kind: "neurons", layer, k, target, prompt, position }),
        ({ reply, buffers }) => (store.neurons.value = { reply, values: float32(buffers[0]), layer }),
        store.computingNeurons,
      ),
    );
  });
}

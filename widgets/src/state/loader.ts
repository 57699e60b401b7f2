// Requests what the selection needs, and puts the replies into the store. Until a reply comes, the last picture stays,
// without its numbers (`Store.awaited`). After a failure, no reply to another selection stays.
import { batch, computed, type Signal, untracked } from "@preact/signals-core";
import { child, later, watch } from "../base/lifetime";
import { type Ask, type Client, float32, type Kind, RequestFailed, type Result } from "../wire/client";
import type { Attribute } from "../wire/protocol.gen";
import { type Comparison, comparisonOf } from "./comparison";
import { featureKey } from "./feature-tokens";
import { nextKey } from "./next-tokens";
import {
  comparison,
  contributions,
  featureTokens,
  feeding,
  neurons,
  nextTokens,
  pairing,
  scores,
  segments,
  tokens,
} from "./questions";
import { type Chart, COMPARED, PAIRING } from "./runs";
import { promptKey } from "./segments";
import { type Attribution, FEATURE, FEEDS, NEURONS, NEXT, SCORES, SEGMENTS, type Store } from "./store";
import { isSet, targetKey } from "./target";
import { innerFactsKey } from "./trail-words";

/** The facts of at most this many targets inside the model are kept. */
const MOST_INNER = 64;
/** If a reply takes longer than this, the texts of the last picture are hidden. Hidden at once, they would flicker. */
export const LATE_MS = 250;

/**
 * Whether a request failed because the cache changed or is gone, or the kernel was lost. Then the last picture stays if
 * it is of this selection. The reason is shown once, not in each view.
 */
export function isOutdated(error: unknown, store: Store): boolean {
  if (!(error instanceof RequestFailed)) return false;
  if (error.code === "lost" || error.code === "not-saved") return true; // "not-saved" comes from snapshot.ts
  const outdated = (error.code === "gone" || error.code === "changed") && store.ref.peek() !== null;
  if (outdated) store.outdated.value += 1;
  return outdated;
}

/** Whether a comparison was refused because the run without some heads has not been made. */
export function isRunFirst(error: unknown): boolean {
  return error instanceof RequestFailed && error.code === "run-first";
}

/** The decomposition in a reply. */
export function attributionOf({ reply, buffers }: Result<"attribute">): Attribution {
  const values = (at: number, there: boolean): Float32Array | null => (there ? float32(buffers[at]) : null);
  const hasPrompts = reply.per_prompt ?? false;
  return {
    reply,
    rows: float32(buffers[0]),
    std: values(1, buffers.length > 1),
    perPrompt: values(2, hasPrompts),
    constants: values(3, hasPrompts),
  };
}

export function load(store: Store, client: Client, signal: AbortSignal): void {
  const now = <T>(body: () => T): T => untracked(body);
  const problem = (lane: string, message: string | null): void => {
    const problems = new Map(untracked(() => store.problems.value));
    if (message === null ? problems.delete(lane) : problems.set(lane, message)) store.problems.value = problems;
  };
  const run = <T>(
    lane: string,
    reply: Promise<T | null>,
    put: (result: T) => void,
    count = store.computing,
    failed: (why: "refused" | "lost" | "run first") => void = () => undefined,
  ): void => {
    count.value += 1;
    const done = (): void => void (count.value -= 1);
    reply.finally(done).then(
      (result) => {
        if (result === null || signal.aborted) return; // replaced by a newer request
        batch(() => {
          put(result);
          problem(lane, null);
        });
      },
      (error: unknown) => {
        if (signal.aborted) return;
        const why = isOutdated(error, store) ? "lost" : isRunFirst(error) ? "run first" : "refused";
        batch(() => {
          failed(why);
          if (why !== "lost")
            problem(lane, why === "run first" ? null : error instanceof Error ? error.message : String(error));
        });
      },
    );
  };

  watch(signal, () => {
    void store.dataKey.value; // a renamed or replaced cache is described again
    void store.relisted.value;
    const put = ({ reply }: Result<"describe">): void => {
      if (JSON.stringify(reply) !== JSON.stringify(store.facts.peek())) store.facts.value = reply;
    };
    now(() => run("describe", client.latest("describe", { kind: "describe" }), put));
  });

  const setAwaited = (lane: string, isAwaited: boolean): void => {
    const before = store.awaited.peek();
    if (before.has(lane) === isAwaited) return;
    store.awaited.value = new Set(isAwaited ? [...before, lane] : [...before].filter((other) => other !== lane));
  };
  let pause: AbortController | null = null;
  watch(signal, () => {
    const isAwaited = store.awaited.value.size > 0;
    if (isAwaited === (pause !== null)) return;
    pause?.abort();
    pause = isAwaited ? child(signal) : null;
    if (pause) later(LATE_MS, pause.signal, () => (store.isLate.value = true));
    else now(() => (store.isLate.value = false));
  });

  /**
   * Sends a request whenever the request changes. A new target with the same token ids does not count as a change.
   *
   * After a failure, `clear` removes the reply to an earlier request. (A reply that has its own key needs no `clear`.)
   * If the cache or the kernel is lost, the last reply stays, or comes back, in the selection that it belongs to.
   * `runFirst` is called if a run of the model is needed first. It returns whether that run is being made.
   */
  const follow = <K extends Kind>(
    lane: string,
    question: () => Extract<Ask, { kind: K }> | null,
    put: (result: Result<K>, ask: Extract<Ask, { kind: K }>) => void,
    {
      count = store.computing,
      clear = () => undefined,
      runFirst = () => false,
      keepsSame = false,
    }: { count?: Signal<number>; clear?: () => void; runFirst?: () => boolean; keepsSame?: boolean } = {},
  ): void => {
    const asked = computed(() => {
      const ask = question();
      if (ask === null) return null;
      const target = "target" in ask ? targetKey(ask.target) : null;
      const other = ask.kind === "compare" || ask.kind === "pairing" ? store.runs.otherKey.value : "";
      return `${store.dataKey.value} ${store.answersAgain.value} ${other} ${JSON.stringify({ ...ask, target })}`;
    });
    /** The last reply, the key of its request, and the selection that it belongs to. */
    let last: { key: string; selection: string; result: Result<K>; ask: Extract<Ask, { kind: K }> } | null = null;
    watch(signal, () => {
      const key = asked.value;
      now(() => {
        const ask = question();
        if (key === null || ask === null) return setAwaited(lane, false); // not shown, or nothing to request
        const selection = `${store.ref.peek()?.id ?? ""} ${JSON.stringify(ask)}`;
        setAwaited(lane, last?.selection !== selection);
        run(
          lane,
          client.latest<K>(lane, ask),
          (result) => {
            last = { key, selection, result, ask };
            const present = asked.peek();
            setAwaited(lane, present !== null && present !== key);
            put(result, ask);
          },
          count,
          (why) => {
            if (why === "run first" && runFirst()) return; // the comparison is awaited until the run is made
            setAwaited(lane, false);
            const isSame = last?.selection === selection;
            if (why === "lost" && last && isSame) put(last.result, last.ask);
            else if (!isSame || !keepsSame) clear();
          },
        );
      });
    });
  };

  follow<"tokens">(
    "tokens",
    () => tokens(store.shown),
    ({ reply }) => (store.tokens.value = reply.tokens),
    { clear: () => (store.tokens.value = []), keepsSame: true }, // a prompt's tokens stay, so that nothing moves
  );

  watch(signal, () => {
    void store.dataKey.value;
    if (isSet(store.target.value)) return now(() => problem("target", null));
    if (store.ref.value !== null) return; // not an inline panel: hosts/cache-view.ts sets the target of each cache
    now(() => run("target", client.latest("target", { kind: "target" }), (r) => (store.target.value = r.reply.target)));
  });

  const attribution = (lane: string, by: Attribute["by"], put: (a: Attribution | null) => void): void =>
    follow<"attribute">(
      lane,
      () => (isSet(store.target.value) ? contributions(store.shown, by) : null),
      (result) => put(attributionOf(result)),
      { clear: () => put(null) },
    );
  attribution("heads", "head", (a) => {
    store.headRows.value = a;
    const { inner } = a?.reply ?? {};
    if (!inner) return;
    const known = [...store.inner.peek(), [innerFactsKey(store, store.target.peek()), inner] as const];
    store.inner.value = new Map(known.slice(-MOST_INNER));
  });
  attribution("layers", "layer", (a) => (store.layerRows.value = a));
  attribution("lens", "accumulated", (a) => (store.lens.value = a));

  const compared = (lane: Chart, by: Attribute["by"], put: (c: Comparison | null) => void): void => {
    watch(signal, () => {
      if (store.against.value !== null) return;
      now(() => (put(null), problem(COMPARED[lane], null)));
    });
    follow<"compare">(
      COMPARED[lane],
      () => (isSet(store.target.value) ? comparison(store.shown, by) : null),
      (result, ask) => {
        if (store.against.peek() === null) return;
        put(comparisonOf(result));
        if (lane === "heads") store.runs.whatIf.compared.value = ask.against;
      },
      {
        clear: () => put(null),
        runFirst: () => {
          store.runs.whatIf.isMissing.value = true;
          return store.runs.whatIf.isRunning.peek();
        },
      },
    );
    // The run is not being made, so no comparison with it is awaited. The last comparison was with another run.
    watch(signal, () => {
      const { isMissing, isRunning } = store.runs.whatIf;
      if (isMissing.value && !isRunning.value) now(() => (setAwaited(COMPARED[lane], false), put(null)));
    });
  };
  watch(signal, () => {
    if (pairing(store.shown) !== null) return;
    now(() => ((store.runs.lastPairing.value = null), problem(PAIRING, null)));
  });
  follow<"pairing">(
    PAIRING,
    () => pairing(store.shown),
    ({ reply }, ask) => {
      if (JSON.stringify(ask) === JSON.stringify(pairing(store.shown))) store.runs.lastPairing.value = reply;
    },
    { clear: () => (store.runs.lastPairing.value = null) },
  );

  compared("heads", "head", (c) => (store.runs.heads.value = c));
  compared("layers", "layer", (c) => (store.runs.layers.value = c));
  compared("lens", "accumulated", (c) => (store.runs.lens.value = c));

  follow<"next-tokens">(
    NEXT,
    () => nextTokens(store.shown),
    ({ reply, buffers }) => {
      const [logProb, rank, layers, heads] = [0, 1, 2, 3].map((at) => float32(buffers[at])) as [
        Float32Array,
        Float32Array,
        Float32Array,
        Float32Array,
      ];
      const key = nextKey(store);
      store.nextTokens.value = { key, reply, logProb, rank, layers, heads: heads.length > 0 ? heads : null };
    },
    { count: store.computingScores },
  );
  watch(signal, () => {
    if (store.segments.value === null || store.isMean.value) now(() => problem(SEGMENTS, null));
  });
  follow<"segments">(
    SEGMENTS,
    () => {
      const facts = store.facts.value;
      // In a saved picture, the user cannot choose segments. If none are chosen, nothing is requested.
      return facts && !(store.isSaved.value && store.segments.value === null) ? segments(store.shown, facts) : null;
    },
    ({ reply }, { prompt = null }) => {
      const before = store.segmentsKnown.peek()?.segments;
      store.segmentsFound.value = { key: promptKey(store.dataKey.value, prompt), reply };
      if (JSON.stringify(before) !== JSON.stringify(reply.segments)) store.unfolded.value = new Set();
    },
  );
  follow<"feature-tokens">(
    FEATURE,
    () => {
      const saes = store.facts.value?.saes;
      return store.tab.value === "features" && saes?.length ? featureTokens(store.shown, saes) : null;
    },
    ({ reply, buffers }, ask) =>
      (store.featureTokens.value = { key: featureKey(store, ask), reply, values: float32(buffers[0]) }),
    { count: store.computingScores },
  );
  follow<"scores">(
    SCORES,
    () => {
      const score = store.score.value;
      return score === null ? null : scores(store.shown, score);
    },
    ({ reply, buffers }) => (store.scores.value = { reply, values: float32(buffers[0]) }),
    { count: store.computingScores, clear: () => (store.scores.value = null) },
  );
  follow<"attribute">(
    FEEDS,
    () => {
      const feeds = store.feeds.value;
      return feeds === null ? null : feeding(store.shown, feeds);
    },
    (result) => (store.feeding.value = { feeds: store.feeds.peek(), rows: attributionOf(result) }),
    { count: store.computingScores, clear: () => (store.feeding.value = null) },
  );
  follow<"neurons">(
    NEURONS,
    () => (store.ranking.value === "neurons" && isSet(store.target.value) ? neurons(store.shown) : null),
    ({ reply, buffers }, { layer = null }) => (store.neurons.value = { reply, values: float32(buffers[0]), layer }),
    { count: store.computingNeurons, clear: () => (store.neurons.value = null) },
  );
}

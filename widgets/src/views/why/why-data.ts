// What the tab "why" shows of the present target: its columns, each a whole sum, and the tokens that its head writes.
import { computed, type ReadonlySignal, type Signal } from "@preact/signals-core";
import { headName } from "../../base/format";
import { attributionOf } from "../../state/loader";
import { type Answered, asking } from "../../state/query";
import { contributions, headTokens, moved, pairs, sideOf } from "../../state/questions";
import type { Attribution, Store } from "../../state/store";
import { isInside, type Position, quantity, readAt, scoreIn } from "../../state/target";
import { type Client, float32 } from "../../wire/client";
import { type Component, componentsOf } from "../../wire/components";
import type { HeadTokensReply, PairsReply, Target } from "../../wire/protocol.gen";

/** A question that a column answers: what a target is made of. */
export interface Asked {
  target: Target;
  /** The position that was asked for. */
  position: Position;
}
interface Sum extends Asked {
  attribution: Attribution;
}
export interface Column extends Sum {
  id: "query" | "key" | "moved" | "whole";
  title: string;
  /** "what ·to₁₄ looks for" */
  note: string;
}
export interface Pairs {
  reply: PairsReply;
  query: readonly Component[];
  key: readonly Component[];
  /** [query + 1, key + 1], row-major; the last row and column are all others. */
  values: Float32Array;
}
export interface WhyData {
  columns: ReadonlySignal<Column[]>;
  pairs: Answered<Pairs>;
  written: Answered<HeadTokensReply>;
  trouble: ReadonlySignal<string | null>;
  waiting: ReadonlySignal<boolean>;
}

export function whyData(store: Store, client: Client, k: Signal<number>, signal: AbortSignal): WhyData {
  const { shown } = store;
  const inSight = computed(() => store.tab.value === "why" && isInside(store.target.value));
  const score = computed(() => (inSight.value ? scoreIn(store.target.value) : null));
  const sides = computed(() => score.value !== null && store.whyShows.value === "sides");
  const sum = (lane: string, ask: () => ReturnType<typeof sideOf>): Answered<Sum> =>
    asking<"attribute", Sum>(`why ${lane}`, store, client, signal, ask, (result, { target, position = "last" }) => ({
      target,
      position,
      attribution: attributionOf(result),
    }));
  const query = sum("query", () => (sides.value ? sideOf(shown, "query") : null));
  const key = sum("key", () => (sides.value ? sideOf(shown, "key") : null));
  const then = sum("moved", () => (sides.value ? moved(shown, store.lastPosition.value) : null));
  const whole = sum("whole", () => (inSight.value && score.value === null ? contributions(shown, "head") : null));
  const paired = asking<"pairs", Pairs>(
    "why pairs",
    store,
    client,
    signal,
    () => (score.value !== null && store.whyShows.value === "pairs" ? pairs(shown, k.value) : null),
    ({ reply, buffers }) => ({
      reply,
      query: componentsOf(reply.query),
      key: componentsOf(reply.key),
      values: float32(buffers[0]),
    }),
  );
  const written = asking<"head-tokens", HeadTokensReply>(
    "why tokens",
    store,
    client,
    signal,
    () => (inSight.value ? headTokens(shown) : null),
    ({ reply }) => reply,
  );
  /** A neuron has no head: what the head of the step before writes is no longer shown. */
  const ofHead = computed(() => inSight.value && headTokens(shown) !== null);

  const columns = computed((): Column[] => {
    const column = (id: Column["id"], sum: Sum | null): Column[] =>
      sum ? [{ id, ...sum, ...wordsOf(store, id, sum) }] : [];
    if (!sides.value) return score.value === null ? column("whole", whole.shown.value) : [];
    return [
      ...column("query", query.shown.value),
      ...column("key", key.shown.value),
      ...(moved(shown, store.lastPosition.value) ? column("moved", then.shown.value) : []),
    ];
  });
  const all = [query, key, then, whole, paired];
  return {
    columns,
    pairs: paired,
    written: {
      ...written,
      shown: computed(() => (ofHead.value ? written.shown.value : null)),
      trouble: computed(() => (ofHead.value ? written.trouble.value : null)),
    },
    trouble: computed(() => {
      if (score.value === null) return whole.trouble.value;
      if (!sides.value) return paired.trouble.value;
      return (
        query.trouble.value ?? key.trouble.value ?? (moved(shown, store.lastPosition.value) ? then.trouble.value : null)
      );
    }),
    waiting: computed(() => all.some(({ waiting }) => waiting.value)),
  };
}

const INPUTS = {
  pre: "its input, before the activation function,",
  gate: "its gate, before the activation function,",
  up: "its linear part",
};

function wordsOf(
  store: Store,
  id: Column["id"],
  { target, position, attribution }: Sum,
): { title: string; note: string } {
  const score = scoreIn(target);
  const through = target.through?.at(-1);
  const token = (at: Position | null): string => {
    const place = at === "last" ? store.lastPosition.value : at;
    return place === null ? "the last token" : store.tokenName(place);
  };
  if (score && id === "query") return { title: "Query side", note: `what ${token(score.destination)} looks for` };
  if (score) {
    const { versus = "most" } = score;
    const most = store.isMean.value ? null : (attribution.reply.inner?.versus ?? null); // the first prompt's
    const other = versus === "most" ? most : versus;
    const minus =
      other === "mean"
        ? ", minus the mean"
        : typeof other === "number"
          ? `, minus ${store.tokenName(other)}`
          : versus === "most" && store.isMean.value
            ? ", minus what it reads most of the others" // another token in each prompt
            : "";
    return { title: "Key side", note: `what ${token(score.source)} offers${minus}` };
  }
  const source = through?.source === null || through === undefined ? "" : `from ${token(through.source)} `;
  const into = { ...target, through: target.through?.slice(0, -1) ?? [] };
  const from = `${source}to the ${quantity(into, store.prompt.value)}`;
  if (id === "moved") return { title: "What it moves", note: from };
  if (through) return { title: `What ${headName(through.layer, through.head)} moves`, note: from };
  if (target.inner?.kind === "neuron") {
    const { layer, index, part } = target.inner;
    return { title: `L${layer}N${index}`, note: `${INPUTS[part ?? "pre"]} at ${token(position)}` };
  }
  return { title: "The direction", note: `at ${token(readAt(target, position))}` };
}

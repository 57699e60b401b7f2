// The data of the tab "why": the columns, each with all terms of one sum, and the tokens that the target's head writes.
import { computed, type ReadonlySignal, type Signal } from "@preact/signals-core";
import { headName, signed } from "../../base/format";
import { shown as safe } from "../../base/legible";
import { attributionOf } from "../../state/loader";
import { type Answered, asking } from "../../state/query";
import { contributions, headsOwnRow, headTokens, moved, pairs, sideOf } from "../../state/questions";
import type { Attribution, Store } from "../../state/store";
import {
  behindHead,
  isInside,
  lastWords,
  type Position,
  quantity,
  readAt,
  scoreIn,
  targetKey,
} from "../../state/target";
import { type Client, float32 } from "../../wire/client";
import { type Component, componentsOf } from "../../wire/components";
import type { HeadTokensReply, PairsReply, Target } from "../../wire/protocol.gen";
import { headRow, type Row, rowIn } from "./head-row";
import { linesOf } from "./why-lines";

/** What a column decomposes: a target at a position. */
export interface Asked {
  target: Target;
  /** The position of the request. */
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
  /** [query + 1, key + 1], row-major. The last row and the last column are the sums over all other components. */
  values: Float32Array;
}
export interface WhyData {
  columns: ReadonlySignal<Column[]>;
  pairs: Answered<Pairs>;
  written: Answered<HeadTokensReply>;
  trouble: ReadonlySignal<string | null>;
  waiting: ReadonlySignal<boolean>;
  /** How much the target's head reads of each source; null if that is not known. */
  sources: ReadonlySignal<Row | null>;
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
  // Before the tokens are known, the last position is not known either, and the request would be another one.
  const isEarly = computed(() => store.tokens.value.length === 0 && !store.problems.value.has("tokens"));
  const moves = (): ReturnType<typeof moved> =>
    isEarly.value ? null : moved(shown, store.lastPosition.value, store.parallel.value);
  const movedSum = sum("moved", () => (sides.value ? moves() : null));
  const whole = sum("whole", () => (inSight.value && score.value === null ? contributions(shown, "head") : null));
  const through = computed(() => (inSight.value ? (store.target.value.through?.at(-1) ?? null) : null));
  const row = sum("row", () => (inSight.value ? headsOwnRow(shown) : null));
  const sources = asking<"attention", { head: string; row: Row | null }>(
    "why sources",
    store,
    client,
    signal,
    () => {
      const head = through.value;
      const asked = { target: behindHead(store.target.value), position: store.chosenPosition.value };
      if (!head || head.source === null || store.isSaved.value) return null;
      return headRow(store, headName(head.layer, head.head), asked, "pattern");
    },
    (result, { layer, head }) => ({ head: headName(layer, head), row: rowIn(result, ["pattern", "reads"]) }),
  );
  /** What the head of a column contributes from all sources, not only from the column's source; null if not known. */
  const rowOf = ({ target }: Sum): number | null => {
    const head = target.through?.at(-1);
    const found = row.shown.value;
    if (!head || head.source === null || !found) return null;
    if (targetKey(found.target) !== targetKey(behindHead(target))) return null;
    const at = componentsOf(found.attribution.reply.components).findIndex(
      ({ kind, layer, index }) => kind === "head" && layer === head.layer && index === head.head,
    );
    const value = found.attribution.rows[at];
    return value === undefined || Number.isNaN(value) ? null : value;
  };
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
  /** Whether the target has a head. A neuron has none, so the tokens of an earlier head are hidden. */
  const ofHead = computed(() => inSight.value && headTokens(shown) !== null);

  const columns = computed((): Column[] => {
    const column = (id: Column["id"], sum: Sum | null): Column[] =>
      sum ? [{ id, ...sum, ...wordsOf(store, id, sum, id === "whole" ? rowOf(sum) : null) }] : [];
    if (!sides.value) return score.value === null ? column("whole", whole.shown.value) : [];
    return [
      ...column("query", query.shown.value),
      ...column("key", key.shown.value),
      ...(moves() ? column("moved", movedSum.shown.value) : []),
    ];
  });
  const all = [query, key, movedSum, whole, paired, row];
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
      return query.trouble.value ?? key.trouble.value ?? (moves() ? movedSum.trouble.value : null);
    }),
    waiting: computed(() => all.some(({ waiting }) => waiting.value)),
    sources: computed(() => {
      const head = through.value;
      const found = sources.shown.value;
      return head && found?.head === headName(head.layer, head.head) ? found.row : null;
    }),
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
  row: number | null,
): { title: string; note: string } {
  const score = scoreIn(target);
  const through = target.through?.at(-1);
  const token = (at: Position | null): string => {
    const place = at === "last" ? store.lastPosition.value : at;
    return place === null ? lastWords(target) : store.tokenName(place);
  };
  if (score && id === "query") return { title: "Query side", note: `what ${token(score.destination)} looks for` };
  if (score) {
    const { versus = "most" } = score;
    // In the mean, the reply has the source of the first prompt only.
    const most = store.isMean.value ? null : (attribution.reply.inner?.versus ?? null);
    const other = versus === "most" ? most : versus;
    const minus =
      other === "mean"
        ? ", minus the mean"
        : typeof other === "number"
          ? `, minus ${store.tokenName(other)}`
          : versus === "most" && store.isMean.value
            ? ", minus what the other most-read source offers" // which source this is can differ between prompts
            : "";
    return { title: "Key side", note: `what ${token(score.source)} offers${minus}` };
  }
  const source = through?.source === null || through === undefined ? "" : `from ${token(through.source)}`;
  const to = `to the ${quantity(behindHead(target), store.prompt.value)}`;
  const from = source ? `${source} ${to}` : to;
  if (id === "moved") return { title: "What it moves", note: from };
  if (through) {
    const { total } = linesOf(attribution, target, 0, store.parallel.value);
    const share = row === null ? "" : `${signed(total, row)} of its ${signed(row, row)} ${to} · ${source}`;
    const note = share ? `${share}; the rest from other sources` : from;
    return { title: `What ${headName(through.layer, through.head)} moves`, note };
  }
  if (target.inner?.kind === "neuron") {
    const { layer, index, part } = target.inner;
    return { title: `L${layer}N${index}`, note: `${INPUTS[part ?? "pre"]} at ${token(position)}` };
  }
  const feature = target.inner?.kind === "direction" ? (target.inner.feature ?? null) : null;
  if (feature)
    return {
      title: `Feature ${feature.index} of ${safe(feature.read)}`,
      note: `what it reads at ${token(position)}, before its nonlinearity`,
    };
  return { title: "The direction", note: `at ${token(readAt(target, position))}` };
}

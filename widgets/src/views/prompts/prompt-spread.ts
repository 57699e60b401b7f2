// The value for each prompt: the contribution of one head, or the value of the target. If the charts show the mean over
// the prompts, the values come from the charts' reply. If they show a single prompt, the values are requested.
import { computed, type ReadonlySignal } from "@preact/signals-core";
import { headName } from "../../base/format";
import { attributionOf } from "../../state/loader";
import { asking } from "../../state/query";
import { ofEachPrompt } from "../../state/questions";
import type { Attribution, Store } from "../../state/store";
import { isSet } from "../../state/target";
import type { Client } from "../../wire/client";
import { componentsOf } from "../../wire/components";
import { type Spread, spreadOf } from "../heads/spread";

export interface PromptSpread extends Spread {
  /** The head; null for the target itself. */
  head: string | null;
}
export interface PromptSpreadState {
  spread: ReadonlySignal<PromptSpread | null>;
  trouble: ReadonlySignal<string | null>;
  waiting: ReadonlySignal<boolean>;
}

export function promptSpread(
  store: Store,
  client: Client,
  head: ReadonlySignal<string | null>,
  signal: AbortSignal,
): PromptSpreadState {
  const by = computed(() => (head.value === null ? "accumulated" : "head"));
  const request = asking<"attribute", Attribution>(
    "prompts",
    store,
    client,
    signal,
    () => {
      const isNeeded = store.tab.value === "prompts" && !store.isMean.value && (store.facts.value?.prompts ?? 1) > 1;
      return isNeeded && isSet(store.target.value) ? ofEachPrompt(store.shown, by.value) : null;
    },
    attributionOf,
  );

  const lane = computed(() => (head.value === null ? "lens" : "heads"));
  const waiting = computed(() => (store.isMean.value ? store.awaited.value.has(lane.value) : request.waiting.value));
  /** The last spread that is known. It stays on screen while a reply is awaited. */
  let last: PromptSpread | null = null;
  const spread = computed(() => {
    const heads = store.facts.value?.heads ?? 0;
    const attribution = store.isMean.value
      ? head.value === null
        ? store.lens.value
        : store.headRows.value
      : request.shown.value;
    return (last = promptSpreadOf(attribution, head.value, heads) ?? (waiting.value ? last : null));
  });
  return {
    spread,
    trouble: computed(() => (store.isMean.value ? store.reasonNotDrawn(lane.value) : request.trouble.value)),
    waiting,
  };
}

/** The spread over all prompts; null if the attribution is of a single prompt, or has no row of the head or target. */
export function promptSpreadOf(data: Attribution | null, head: string | null, heads: number): PromptSpread | null {
  if (!data || data.reply.by !== (head === null ? "accumulated" : "head")) return null;
  const components = componentsOf(data.reply.components);
  if (head !== null) {
    const row = components.findIndex(
      ({ label }, i) => label === head && label === headName(Math.floor(i / heads), i % heads),
    );
    const spread = row < 0 ? null : spreadOf(data, row);
    return spread && { ...spread, head };
  }
  if (components.at(-1)?.kind !== "final_post") return null; // the cache does not reach the end of the model
  const spread = spreadOf(data, data.rows.length - 1);
  if (!spread) return null;
  const each = spread.each?.map((value, prompt) => value + (data.constants?.[prompt] ?? NaN)) ?? null;
  return { ...spread, mean: spread.mean + data.reply.constant, each, head };
}

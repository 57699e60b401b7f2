// What each prompt has: of one head, or of the whole. From the mean that the charts show; while they show one prompt,
// asked for.
import { computed, type ReadonlySignal } from "@preact/signals-core";
import { headName } from "../../base/format";
import { attributionOf } from "../../state/loader";
import { asking } from "../../state/query";
import type { Attribution, Store } from "../../state/store";
import { isSet } from "../../state/target";
import type { Client } from "../../wire/client";
import { componentsOf } from "../../wire/components";
import { type Spread, spreadOf } from "../heads/spread";

export interface Figures extends Spread {
  /** The head; null is the whole. */
  head: string | null;
}
export interface PromptFigures {
  figures: ReadonlySignal<Figures | null>;
  trouble: ReadonlySignal<string | null>;
  waiting: ReadonlySignal<boolean>;
}

export function promptFigures(
  store: Store,
  client: Client,
  head: ReadonlySignal<string | null>,
  signal: AbortSignal,
): PromptFigures {
  const by = computed(() => (head.value === null ? "accumulated" : "head"));
  const asked = asking<"attribute", Attribution>(
    "prompts",
    store,
    client,
    signal,
    () => {
      const [target, position] = [store.target.value, store.chosenPosition.value];
      const here = store.tab.value === "prompts" && !store.isMean.value && (store.facts.value?.prompts ?? 1) > 1;
      return here && isSet(target)
        ? { kind: "attribute", by: by.value, target, prompt: null, position, norm: "frozen" }
        : null;
    },
    attributionOf,
  );

  let last: Figures | null = null;
  const figures = computed(() => {
    const heads = store.facts.value?.heads ?? 0;
    const mean = store.isMean.value
      ? head.value === null
        ? store.lens.value
        : store.headRows.value
      : asked.shown.value;
    return (last = figuresOf(mean, head.value, heads) ?? last);
  });
  return {
    figures,
    trouble: computed(() => (store.isMean.value ? null : asked.trouble.value)),
    waiting: asked.waiting,
  };
}

/** Null where this decomposition is not of all prompts, or not the one that is meant. */
export function figuresOf(data: Attribution | null, head: string | null, heads: number): Figures | null {
  if (!data || data.reply.by !== (head === null ? "accumulated" : "head")) return null;
  const components = componentsOf(data.reply.components);
  if (head !== null) {
    const row = components.findIndex(
      ({ label }, i) => label === head && label === headName(Math.floor(i / heads), i % heads),
    );
    const spread = row < 0 ? null : spreadOf(data, row);
    return spread && { ...spread, head };
  }
  if (components.at(-1)?.kind !== "final_post") return null; // the run stopped before its end
  const spread = spreadOf(data, data.rows.length - 1);
  if (!spread) return null;
  const each = spread.each?.map((value, prompt) => value + (data.constants?.[prompt] ?? NaN)) ?? null;
  return { ...spread, mean: spread.mean + data.reply.constant, std: each ? deviation(each) : spread.std, each, head };
}

/** As in Python: the standard deviation of a sample. */
function deviation(values: Float32Array): number {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / Math.max(1, values.length - 1));
}

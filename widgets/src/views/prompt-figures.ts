// What each prompt has: of one head, or of the whole. From the mean that the charts show; while they show one prompt, asked for.
import { computed, type ReadonlySignal } from "@preact/signals-core";
import { type Client, float32 } from "../client";
import { headName } from "../format";
import type { Attribution, Store } from "../store";
import { isSet } from "../target";
import { asking } from "./asking";
import { type Spread, spreadOf } from "./spread";

export interface Figures extends Spread {
  /** The head; null is the whole. */
  head: string | null;
  /** What was added to each prompt's row of the lens. */
  constant: number;
}
export interface PromptFigures {
  figures: ReadonlySignal<Figures | null>;
  trouble: ReadonlySignal<string | null>;
  waiting: ReadonlySignal<boolean>;
}

export function promptFigures(store: Store, client: Client, head: ReadonlySignal<string | null>, signal: AbortSignal): PromptFigures {
  const by = computed(() => (head.value === null ? "accumulated" : "head"));
  const asked = asking<"attribute", Attribution>("prompts", store, client, signal, () => {
    const [target, position] = [store.target.value, store.locked.value];
    const here = store.tab.value === "prompts" && !store.isMean.value && (store.facts.value?.prompts ?? 1) > 1;
    return here && isSet(target) ? { kind: "attribute", by: by.value, target, prompt: null, position, norm: "frozen" } : null;
  }, ({ reply, buffers }) => ({ reply, rows: float32(buffers[0]), std: buffers[1] ? float32(buffers[1]) : null, perPrompt: reply.per_prompt ? float32(buffers[2]) : null }));

  let last: Figures | null = null;
  const figures = computed(() => {
    const heads = store.facts.value?.heads ?? 0;
    const mean = store.isMean.value ? (head.value === null ? store.lens.value : store.headRows.value) : asked.shown.value;
    return (last = figuresOf(mean, head.value, heads) ?? last);
  });
  return { figures, trouble: computed(() => (store.isMean.value ? null : asked.trouble.value)), waiting: asked.waiting };
}

/** Null where this decomposition is not of all prompts, or not the one that is meant. */
export function figuresOf(data: Attribution | null, head: string | null, heads: number): Figures | null {
  if (!data || data.reply.by !== (head === null ? "accumulated" : "head")) return null;
  if (head !== null) {
    const row = data.reply.labels.findIndex((label, i) => label === head && label === headName(Math.floor(i / heads), i % heads));
    const spread = row < 0 ? null : spreadOf(data, row);
    return spread && { ...spread, head, constant: 0 };
  }
  const spread = spreadOf(data, data.rows.length - 1);
  const { constant } = data.reply;
  return spread && { ...spread, mean: spread.mean + constant, each: spread.each?.map((value) => value + constant) ?? null, head, constant };
}

// Stores and replies made by hand, for the tests that need no panel.

import { columnsOf } from "../dev/component-table";
import type { Sentence } from "../src/base/sentence";
import { type Attribution, Store } from "../src/state/store";
import type { AttributionReply, CacheFacts } from "../src/wire/protocol.gen";

export function factsOf(given: Partial<CacheFacts> = {}): CacheFacts {
  return {
    kind: "describe",
    name: "cache",
    model: "m",
    layers: 2,
    heads: 2,
    prompts: 1,
    positions: 3,
    dtype: "float32",
    device: "cpu",
    bytes: 1,
    missing: [],
    last: [2],
    has_tokens: true,
    ...given,
  };
}

export function attributionOf(
  rows: number[],
  { labels = rows.map((_, i) => `row ${i}`), ...given }: Partial<AttributionReply> & { labels?: string[] } = {},
  std: number[] | null = null,
): Attribution {
  const reply: AttributionReply = {
    kind: "attribute",
    by: "head",
    components: columnsOf(labels),
    measured: null,
    constant: 0,
    unexplained: null,
    worst: null,
    tolerance: 1e-4,
    measured_from: "the given logits",
    own: true,
    prompts: 1,
    notes: [],
    ...given,
  };
  return { reply, rows: Float32Array.from(rows), std: std && Float32Array.from(std), perPrompt: null, constants: null };
}

/** A store of one prompt with these tokens, whose heads have these values. */
export function storeOf(texts: string[], rows: number[] = [], given: Partial<CacheFacts> = {}): Store {
  const store = new Store();
  store.tokens.value = texts.map((text) => ({ text }));
  store.facts.value = factsOf({ positions: texts.length, last: [texts.length - 1], ...given });
  store.target.value = { contrasts: [{ answer: [{ id: 1, text: " Mary" }], distractor: [{ id: 2, text: " John" }] }] };
  if (rows.length > 0) store.headRows.value = attributionOf(rows);
  return store;
}

/** A sentence as one text, with stars around the stressed numbers. */
export const flat = (sentence: Sentence): string =>
  sentence.map((part) => (typeof part === "string" ? part : `*${part.stress}*`)).join("");

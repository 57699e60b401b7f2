// How each token was predicted at the position before it, and what each layer and head adds to its logit.
import { parseHead } from "../base/format";
import type { NextTokensReply, Target, TokenLabel } from "../wire/protocol.gen";
import { targetKey } from "./target";

/** A signal of the store, as far as it is needed here. */
interface Of<T> {
  readonly value: T;
}
type Tokens = { readonly tokens: Of<TokenLabel[]> };

export interface NextTokens {
  /** The key, from `nextKey`, of the selection that the values belong to. */
  key: string;
  reply: NextTokensReply;
  /** [position]: the natural logarithm of the next token's probability. */
  logProb: Float32Array;
  /** [position]: the rank of the next token; 1 is the likeliest. */
  rank: Float32Array;
  /** [layer × position]: what each layer adds. */
  layers: Float32Array;
  /** [layer × head × position]: what each head adds; null if there are too many values. */
  heads: Float32Array | null;
}

export function nextKey(store: { dataKey: Of<string>; prompt: Of<number | null>; target: Of<Target> }): string {
  return `${store.dataKey.value} ${store.prompt.value} ${targetKey(store.target.value)}`;
}

/** Whether the strip shows what is added to each token, not what the head in focus reads. */
export function showsEach(store: { asksEach: Of<boolean>; stripReads: Of<boolean> }): boolean {
  return store.asksEach.value && !store.stripReads.value;
}

/**
 * The first position whose next token belongs to the generated answer; 0 if it is not known where the answer begins.
 * The colours are scaled to the answer. The user's own tokens can be unlikely, and would then make the answer pale.
 */
export function answerFrom(store: {
  facts: Of<{ generated_from?: number | null } | null>;
  asksEach: Of<boolean>;
}): number {
  return store.asksEach.value ? Math.max(0, (store.facts.value?.generated_from ?? 0) - 1) : 0;
}

/** The values of the answer; all values if it is not known where the answer begins, or if it has no values. */
export function ofAnswer(store: Parameters<typeof answerFrom>[0], values: Float32Array): Float32Array {
  const part = values.subarray(answerFrom(store));
  return part.some(Number.isFinite) ? part : values;
}

/** Whether a token follows at this position. */
export function hasNext({ tokens: { value: tokens } }: Tokens, position: number): boolean {
  const [here, next] = [tokens[position], tokens[position + 1]];
  return here !== undefined && next !== undefined && !here.padding && !next.padding;
}

/** Why the user cannot ask how the token after this position was predicted. */
export function noQuestion({ tokens }: Tokens, position: number): string {
  const token = tokens.value[position + 1];
  if (token === undefined) return "the last token: nothing came next";
  return token.padding ? "padding, which the model did not write" : "the first token: nothing came before it";
}

/** What a head adds to the token after each position; null if the reply does not have it. */
export function headRow({ heads, layers, reply: { positions } }: NextTokens, name: string): Float32Array | null {
  const head = parseHead(name);
  if (!heads || !head) return null;
  const at = (head.layer * (heads.length / layers.length) + head.head) * positions;
  return heads.subarray(at, at + positions);
}

/** What a layer adds to the token after each position. */
export function layerRow({ layers, reply }: NextTokens, layer: number): Float32Array {
  return layers.subarray(layer * reply.positions, (layer + 1) * reply.positions);
}

// Words about the token that followed a position: how likely it was, and which other token the model expected.
import { quoted, signed, visible } from "../../base/format";
import type { Sentence } from "../../base/sentence";
import { hasNext, noQuestion } from "../../state/next-tokens";
import type { Store } from "../../state/store";
import { probability } from "../token-lens/lens-words";
import type { Added } from "./next-values";

/** How the token after a position was predicted: "p 0.43, rank 1; runner-up “·John”"; "" if this is not known. */
export function predictedWords(store: Store, position: number): string {
  const found = store.nextShown.value;
  const logProb = found?.logProb[position] ?? NaN;
  if (!found || !Number.isFinite(logProb)) return "";
  const rank = found.rank[position] ?? NaN;
  const other = found.reply.runner_up[position] ?? "";
  // The kernel sends the mean of log p. The mean of p cannot be computed from it.
  if (store.isMean.value) return `mean −log p ${(-logProb).toFixed(2)}`;
  return [
    `p ${probability(Math.exp(logProb))}${Number.isFinite(rank) ? `, rank ${rank}` : ""}`,
    ...(other === "" ? [] : [`${rank === 1 ? "runner-up" : "likeliest other"} ${quoted(visible(other))}`]),
  ].join("; ");
}

/** The sentence about the token after a position: how it was predicted, and what the head in focus adds to it. */
export function nextSentence(store: Store, position: number, added: Added | null): Sentence {
  const token = quoted(store.tokenName(position + 1));
  if (!hasNext(store, position)) return [`${token}: ${noQuestion(store, position)}`];
  const words = predictedWords(store, position);
  const start = `${token} after ${quoted(store.tokenName(position))}${words === "" ? "" : `: ${words}`}`;
  const value = added?.values[position] ?? NaN;
  if (!added || !Number.isFinite(value)) return [start];
  return [`${start}; ${added.name} adds `, { stress: signed(value, added.limit) }];
}

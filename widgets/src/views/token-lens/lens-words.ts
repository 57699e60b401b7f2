// Sentences about the token lens.

import { quoted, visible } from "../../base/format";
import type { Sentence } from "../../base/sentence";
import { lensMeaning } from "../../state/axis";
import type { Store } from "../../state/store";
import { inView, isNext, label, shared } from "../../state/target";
import type { Component } from "../../wire/components";
import type { LensCell } from "../../wire/protocol.gen";

/** The text of a probability: "0.43", "0.004", "2e-5". */
export function probability(p: number): string {
  if (!Number.isFinite(p)) return "not known";
  return p >= 0.0995 ? p.toFixed(2) : p >= 0.00095 ? p.toFixed(3) : p === 0 ? "0" : p.toExponential(0);
}

/** The answer's tokens if all selected prompts share them, else "each prompt’s answer"; null if there is no answer. */
export function answerName(store: Store): string | null {
  const target = store.target.value;
  if (target.direction) return null;
  if (isNext(target)) return "what came next";
  const contrasts = inView(target, store.prompt.value);
  const tokens = shared(contrasts, "answer");
  if (contrasts.length === 0 || tokens?.length === 0) return null;
  return tokens ? label(tokens) : "each prompt’s answer";
}

export function hasRank(cell: LensCell): cell is LensCell & { rank: number; answer: number } {
  return typeof cell.rank === "number" && typeof cell.answer === "number";
}

/** The answer's probability and rank: "the answer “·Mary” 0.43, rank 2"; "" if there is no answer. */
export function answerWords(store: Store, cell: LensCell): string {
  const name = answerName(store);
  if (!hasRank(cell) || name === null) return "";
  if (isNext(store.target.value)) return `${name} ${probability(cell.answer)}, rank ${cell.rank}`;
  const tokens = shared(inView(store.target.value, store.prompt.value), "answer");
  return `${tokens ? `the answer ${quoted(name)}` : name} ${probability(cell.answer)}, rank ${cell.rank}`;
}

export function cellSentence(store: Store, cell: LensCell, point: Component, position: number): Sentence {
  const answer = answerWords(store, cell);
  const [top = "", p = NaN] = [cell.tokens[0], cell.probabilities[0]];
  const place = `${lensMeaning(point)} (${point.label})`;
  const at = `at ${quoted(store.tokenName(position))} (position ${position})`;
  const likeliest = `${quoted(visible(top))} ${probability(p)}${answer ? `; ${answer}` : ""}`;
  if (store.lensTransport.value === "transported") return [`Transported from ${place} to the end, ${at}: ${likeliest}`];
  return [`If the model stopped ${place} ${at}, it would predict ${likeliest}`];
}

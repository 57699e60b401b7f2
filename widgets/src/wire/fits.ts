// Whether a reply belongs to a request: it has the request's kind, and repeats its parameters.
import type { Answer, Question } from "./protocol.gen";

/** The parameters of a request that its reply repeats, under the same name. */
const NAMED = ["by", "layer", "head", "score", "pool", "points", "text", "name"] as const;

export function fits(ask: Question["ask"], reply: NonNullable<Answer["reply"]>): boolean {
  if (reply.kind !== ask.kind) return false;
  if (ask.kind === "blend" && reply.kind === "blend" && reply.part.what !== (ask.weighting ?? "pattern")) return false;
  const asked = new Map<string, unknown>(Object.entries(ask));
  const answered = new Map<string, unknown>(Object.entries(reply));
  return NAMED.every((name) => same(asked.get(name), answered.get(name)));
}

/** A parameter that is missing on one side matches any value. */
function same(asked: unknown, answered: unknown): boolean {
  return asked == null || answered == null || JSON.stringify(asked) === JSON.stringify(answered);
}

// Whether a reply is the one to a request: it has the request's kind, and names what was asked for.
import type { Answer, Question } from "./protocol.gen";

/** What a request asks for and its reply names again, by the same name. */
const NAMED = ["by", "layer", "head", "score", "pool", "points", "text", "name"] as const;

export function fits(ask: Question["ask"], reply: NonNullable<Answer["reply"]>): boolean {
  if (reply.kind !== ask.kind) return false;
  if (ask.kind === "blend" && reply.kind === "blend" && reply.part.what !== (ask.weighting ?? "pattern")) return false;
  const asked = new Map<string, unknown>(Object.entries(ask));
  const told = new Map<string, unknown>(Object.entries(reply));
  return NAMED.every((name) => same(asked.get(name), told.get(name)));
}

/** What one side does not name differs from nothing. */
function same(asked: unknown, told: unknown): boolean {
  return asked == null || told == null || JSON.stringify(asked) === JSON.stringify(told);
}

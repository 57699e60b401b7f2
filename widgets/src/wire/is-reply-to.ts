// Whether a reply belongs to a request: the kind is the same, and so are the parameters that the reply repeats.
import type { Answer, Question } from "./protocol.gen";

/** The parameters that a reply may repeat from its request, under the same name. */
const REPEATED = ["by", "layer", "head", "score", "pool", "points", "text", "name", "of"] as const;

export function isReplyTo(request: Question["ask"], reply: NonNullable<Answer["reply"]>): boolean {
  if (reply.kind !== request.kind) return false;
  if (request.kind === "blend" && reply.kind === "blend" && reply.part.what !== (request.weighting ?? "pattern"))
    return false;
  const requested = new Map<string, unknown>(Object.entries(request));
  const repeated = new Map<string, unknown>(Object.entries(reply));
  return REPEATED.every((name) => matches(requested.get(name), repeated.get(name)));
}

/** If only one side has a parameter, it counts as equal. */
function matches(requested: unknown, repeated: unknown): boolean {
  return requested == null || repeated == null || JSON.stringify(requested) === JSON.stringify(repeated);
}

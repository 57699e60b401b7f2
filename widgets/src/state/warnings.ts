// Notes that concern every number of a run. A view shows their words at once; the sentences are among the notes.
import type { AttributionReply } from "../wire/protocol.gen";

export type WarningKind = NonNullable<AttributionReply["warnings"]>[number];

export const WARNINGS: Record<WarningKind, string> = {
  "attended-to-padding": "the model attended to padding",
  "weights-changed": "the weights were changed",
  "training-mode": "the model is in training mode",
};

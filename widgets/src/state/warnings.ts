// Short words for the notes that concern every number of a run. The notes have the full sentences.
import type { AttributionReply } from "../wire/protocol.gen";

export type WarningKind = NonNullable<AttributionReply["warnings"]>[number];

export const WARNINGS: Record<WarningKind, string> = {
  "attended-to-padding": "the model attended to padding",
  "weights-changed": "the weights were changed",
  "training-mode": "the model is in training mode",
};

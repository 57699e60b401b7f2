// Short words for the notes that concern every number of a run. The notes have the full sentences.
import type { AttributionReply } from "../wire/protocol.gen";

export type WarningKind = NonNullable<AttributionReply["warnings"]>[number];

/** A warning, and the compared run that it is about; null: all runs on screen. */
export interface Warned {
  kind: WarningKind;
  run: "A" | "B" | null;
}

const WARNINGS: Record<WarningKind, string> = {
  "attended-to-padding": "the model attended to padding",
  "weights-changed": "the weights were changed",
  "training-mode": "the model is in training mode",
};

/** "the weights were changed", or if it is about one of two compared runs "the weights were changed (B)". */
export function warningWords({ kind, run }: Warned, names: { A: string; B: string } | null = null): string {
  return run === null ? WARNINGS[kind] : `${WARNINGS[kind]} (${names ? `${run}: ${names[run]}` : run})`;
}

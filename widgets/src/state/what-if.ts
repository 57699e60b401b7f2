// The state of a run of the user's model without some heads, which is compared with the cached run.
import { signal as state } from "@preact/signals-core";
import type { Against } from "../wire/protocol.gen";
import type { Behind } from "./turns";

export class WhatIf {
  readonly isRunning = state(false);
  /** Whether the run has not been made, or the kernel has lost it. */
  readonly isMissing = state(false);
  /** Why the run cannot be made, in the kernel's words. */
  readonly refusal = state<string | null>(null);
  /** What the run waits for, if it waits for long. */
  readonly behind = state<Behind | null>(null);
  /** How a run with all heads compares with the cache, in the kernel's words; empty if that is not known. */
  readonly replayed = state("");
  /** The notes on the run. */
  readonly notes = state<string[]>([]);
  /** Counts the runs that were made. After each, the comparison is requested again. */
  readonly made = state(0);
  /** The last run that was compared with. */
  readonly compared = state<Against | null>(null);
  /** How often the user has started the run. `making.ts` watches this count. */
  readonly starts = state(0);

  /** Runs the model. Called only when the user asks for it. */
  start(): void {
    this.starts.value += 1;
  }
}

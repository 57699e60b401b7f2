// Effects that are measured in runs of the user's model: the values so far, and whether more are being measured.
import { computed, type ReadonlySignal, signal as state } from "@preact/signals-core";
import type { EffectsReply, Shown } from "../wire/protocol.gen";
import type { Behind } from "./turns";

export type Effect = NonNullable<Shown["effect"]>;
/** An effect for which the model is run. */
export type Caused = Exclude<Effect, "direct">;
export type ReplacedBy = NonNullable<Shown["replaced_by"]>;

/** The values so far: [layer × head], or [layer × position] for the stream. NaN: not known yet. */
export interface Found {
  reply: EffectsReply;
  total: Float32Array;
  direct: Float32Array;
  estimate: Float32Array;
  /** Whether the activations of the compared run were put in. Then values are changes of the target. */
  isPutIn: boolean;
}

export class Effects {
  /** The values for the present selection; null before the first reply. */
  readonly found = state<Found | null>(null);
  readonly state = state<"idle" | "measuring" | "done" | "stopped" | "refused">("idle");
  /** Why the kernel measures nothing, in its words. */
  readonly refusal = state<string | null>(null);
  /** What the next run waits for, if it waits for long. */
  readonly behind = state<Behind | null>(null);
  readonly isMeasuring: ReadonlySignal<boolean> = computed(() => this.state.value === "measuring");
  /** How often the user has started, and stopped, measuring. `measuring.ts` watches these counts. */
  readonly starts = state(0);
  readonly stops = state(0);
  /** The key of the comparison in which the user chose what takes the place of the activations. */
  chosenIn: string | null = null;
  /** For each effect, the largest value that was on the colour scale. */
  readonly #reach = new Map<Effect, number>();

  constructor(readonly of: "heads" | "stream") {}

  /** Runs the model until everything is measured. Called only when the user asks for it. */
  start(): void {
    this.starts.value += 1;
  }

  stop(): void {
    this.stops.value += 1;
  }

  /** The end of the colour scale. It can grow while values are measured, but does not shrink until `forget`. */
  reach(effect: Effect, limit: number): number {
    const reach = Math.max(this.#reach.get(effect) ?? 0, limit);
    this.#reach.set(effect, reach);
    return reach;
  }

  /** Forgets all values, because another selection is in view. */
  forget(): void {
    this.found.value = this.refusal.value = null;
    this.state.value = "idle";
    this.#reach.clear();
  }
}

/** The values of an effect. Values that are not measured yet are computed from the estimate. */
export function valuesOf(found: Found, effect: Caused): Float32Array {
  return found.total.map((total, i) => {
    const value = isEstimated(found, effect, i) ? (found.estimate[i] ?? NaN) : total;
    return effect === "indirect" ? value - (found.direct[i] ?? NaN) : value;
  });
}

export function isEstimated({ total }: Found, effect: Caused, index: number): boolean {
  return effect === "estimate" || Number.isNaN(total[index]);
}

// Attaching to a kernel, the same for every host: one attempt at a time, what is said while it lasts, and what is told
// when a kernel is found or lost. How a kernel is reached is the host's part.
import { child, later } from "../base/lifetime";
import type { LinkState } from "./link";

/** Longer than attaching to a kernel that is free takes. */
const MOMENT_MS = 600;
const LOOK_MS = 500;

export interface Told {
  state(now: LinkState): void;
  /** What was attached is gone, and what is on the way with it. */
  lost(): void;
  /** Attached: what was asked before is asked again. Comes before the state, which makes others ask at once. */
  renewed(): void;
}

export interface Attempt {
  /**
   * Reaches the kernel. Null: what becomes of it is told in another way.
   *
   * `waiting` ends with the attempt; `signal` with what is attached, or when another attempt takes its place.
   */
  reach(waiting: AbortSignal, signal: AbortSignal): Promise<LinkState | null>;
  /** Whether a cell that runs is what it waits for. */
  busy(): boolean;
}

export class Attachment {
  #current: AbortController;

  constructor(
    readonly told: Told,
    public state: LinkState,
    readonly life: AbortSignal,
  ) {
    this.#current = child(life);
  }

  /** Ends when what is attached, or an attempt, is over. */
  get signal(): AbortSignal {
    return this.#current.signal;
  }

  /** Ends what there was without a word, and begins anew. */
  renew(): AbortSignal {
    this.#current.abort();
    this.#current = child(this.life);
    return this.signal;
  }

  async attempt({ reach, busy }: Attempt): Promise<void> {
    if (this.life.aborted) return;
    const signal = this.renew();
    const waiting = child(signal);
    this.set({ kind: "attaching", busy: false });
    later(MOMENT_MS, waiting.signal, () => this.set({ kind: "attaching", busy: busy() }));
    const outcome = await reach(waiting.signal, signal).catch((error: unknown) => refusal("attach to", error));
    waiting.abort();
    if (signal.aborted || outcome === null) return;
    if (outcome.kind === "ready") this.told.renewed();
    this.set(outcome);
  }

  /** Ends what there was without a word. */
  end(): void {
    this.#current.abort();
  }

  /** What was attached is gone. */
  lose(now: LinkState): void {
    this.end();
    this.told.lost();
    this.set(now);
  }

  set(now: LinkState): void {
    if (JSON.stringify(now) === JSON.stringify(this.state)) return;
    this.state = now;
    this.told.state(now);
  }
}

export function refusal(what: string, error: unknown): LinkState {
  const why = error instanceof Error ? error.message : String(error);
  return { kind: "refused", words: `Residscope could not ${what} this kernel: ${why}` };
}

/** Calls `body` once `idle` was true for `ms` on end, unless `signal` aborts before. */
export function whenIdleFor(ms: number, idle: () => boolean, signal: AbortSignal, body: () => void): void {
  if (signal.aborted) return;
  let since = Date.now();
  const timer = setInterval(() => {
    if (!idle()) since = Date.now();
    else if (Date.now() - since >= ms) {
      clearInterval(timer);
      body();
    }
  }, LOOK_MS);
  signal.addEventListener("abort", () => clearInterval(timer), { once: true });
}

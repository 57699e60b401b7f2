// Attaches to a kernel, in the same way for every host. There is one attempt at a time. A listener gets the state of
// the link, and is called when a kernel is attached or lost. How to reach a kernel is different in each host.
import { child, later } from "../base/lifetime";
import type { LinkState } from "./link";

/** After this time, the state says whether the kernel is busy. An idle kernel is attached sooner. */
const REPORT_BUSY_AFTER_MS = 600;
const CHECK_IDLE_EVERY_MS = 500;

export interface AttachmentListener {
  state(now: LinkState): void;
  /** The attached kernel is lost. Requests without an answer are lost, too. */
  lost(): void;
  /** A kernel is attached, and earlier requests can be sent again. Called before `state`, which causes new requests. */
  renewed(): void;
}

export interface Attempt {
  /**
   * Tries to attach, and returns the new state; null if the host reports the state itself.
   *
   * `waiting` aborts when the attempt has ended. `signal` aborts when the kernel is lost, or another attempt starts.
   */
  reach(waiting: AbortSignal, signal: AbortSignal): Promise<LinkState | null>;
  /** Whether the attempt waits for a running cell. */
  busy(): boolean;
}

export class Attachment {
  #current: AbortController;

  constructor(
    readonly listener: AttachmentListener,
    public state: LinkState,
    /** Ends the attachment and all attempts. */
    readonly parent: AbortSignal,
  ) {
    this.#current = child(parent);
  }

  /** Aborts when the present attempt or attachment ends. */
  get signal(): AbortSignal {
    return this.#current.signal;
  }

  /** Ends the present attempt or attachment without calling the listener, and returns the signal of a new one. */
  renew(): AbortSignal {
    this.#current.abort();
    this.#current = child(this.parent);
    return this.signal;
  }

  async attempt({ reach, busy }: Attempt): Promise<void> {
    if (this.parent.aborted) return;
    const signal = this.renew();
    const waiting = child(signal);
    this.set({ kind: "attaching", busy: false });
    later(REPORT_BUSY_AFTER_MS, waiting.signal, () => this.set({ kind: "attaching", busy: busy() }));
    const outcome = await reach(waiting.signal, signal).catch((error: unknown) => refusal("attach to", error));
    waiting.abort();
    if (signal.aborted || outcome === null) return;
    if (outcome.kind === "ready") this.listener.renewed();
    this.set(outcome);
  }

  /** Ends the present attempt or attachment without calling the listener. */
  end(): void {
    this.#current.abort();
  }

  /** Ends the attachment because the kernel is lost, and tells the listener. */
  lose(now: LinkState): void {
    this.end();
    this.listener.lost();
    this.set(now);
  }

  set(now: LinkState): void {
    if (JSON.stringify(now) === JSON.stringify(this.state)) return;
    this.state = now;
    this.listener.state(now);
  }
}

/** The state after an error; `action` is a verb: "attach to". */
export function refusal(action: string, error: unknown): LinkState {
  const why = error instanceof Error ? error.message : String(error);
  return { kind: "refused", words: `Residscope could not ${action} this kernel: ${why}` };
}

/** Calls `body` when `isIdle()` has been true for `ms` milliseconds without a break, unless `signal` aborts earlier. */
export function whenIdleFor(ms: number, isIdle: () => boolean, signal: AbortSignal, body: () => void): void {
  if (signal.aborted) return;
  let since = Date.now();
  const timer = setInterval(() => {
    if (!isIdle()) since = Date.now();
    else if (Date.now() - since >= ms) {
      clearInterval(timer);
      body();
    }
  }, CHECK_IDLE_EVERY_MS);
  signal.addEventListener("abort", () => clearInterval(timer), { once: true });
}

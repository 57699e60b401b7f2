// A link to a fake kernel in the page, for tests. A test can add, change and delete caches, and restart the kernel.
import { signal as state } from "@preact/signals-core";
import type { Link, LinkState } from "../src/hosts/link";
import type { Answer, CacheRow, Question } from "../src/wire/protocol.gen";
import type { Kernel } from "./fake-model";

type Outcome = ReturnType<Kernel>;

export const ROW: CacheRow = {
  ref: { id: "c1", state: "1.1" },
  names: ["cache"],
  model: "tiny",
  layers: 3,
  heads: 2,
  prompts: 2,
  positions: 6,
  dtype: "float32",
  device: "cpu",
  bytes: 41_300_000,
  missing: [],
  age: 0,
};

export class FakeLink implements Link {
  readonly state = state<LinkState>({ kind: "ready" });
  readonly cells = state(0);
  readonly asked: Question[] = [];
  caches: CacheRow[] = [ROW];
  run = "run 1";
  /** How many caches the first list of a series leaves unread. Each further list reads one of them. */
  unread = 0;
  /** Whether the kernel gives no answers. */
  isSilent = false;
  /** How often `retry` was called. */
  retried = 0;
  readonly #listeners = new Set<(message: unknown, buffers: DataView[]) => void>();
  readonly #lost = new Set<() => void>();
  readonly #renewed = new Set<() => void>();

  constructor(readonly kernel: Kernel) {}

  send(question: Question): void {
    if (this.state.peek().kind !== "ready") throw new Error("No kernel is attached.");
    this.asked.push(question);
    if (this.isSilent) return;
    queueMicrotask(() => {
      const outcome = this.#answer(question);
      const answer: Answer =
        "failure" in outcome
          ? { id: question.id, failure: outcome.failure }
          : { id: question.id, reply: outcome.reply };
      const buffers = "failure" in outcome ? [] : (outcome.buffers ?? []).map((buffer) => new DataView(buffer));
      for (const listener of [...this.#listeners]) listener(answer, buffers);
    });
  }
  onMessage(listener: (message: unknown, buffers: DataView[]) => void, signal: AbortSignal): void {
    this.#add(this.#listeners, listener, signal);
  }
  onLost(listener: () => void, signal: AbortSignal): void {
    this.#add(this.#lost, listener, signal);
  }
  onRenewed(listener: () => void, signal: AbortSignal): void {
    this.#add(this.#renewed, listener, signal);
  }
  retry(): void {
    this.retried += 1;
  }

  // --- events in the kernel -----------------------------------------------------------------------------------------
  /** A cell has ended. The kernel now has these caches. */
  cell(...caches: CacheRow[]): void {
    this.caches = caches;
    this.cells.value += 1;
  }
  /** The kernel is lost, and its caches with it. Until `attach` is called, the link is attaching. */
  restart(): void {
    this.caches = [];
    this.run = "another run";
    this.lose();
  }
  /** The link is lost, for example after an interrupt. The kernel keeps its caches. */
  lose(): void {
    for (const listener of [...this.#lost]) listener();
    this.state.value = { kind: "attaching", busy: false };
  }
  /** The kernel answers again. */
  attach(): void {
    for (const listener of [...this.#renewed]) listener();
    this.state.value = { kind: "ready" };
  }
  listeners(): number {
    return this.#listeners.size + this.#lost.size + this.#renewed.size;
  }

  #answer({ ask, cache }: Question): Outcome {
    if (ask.kind === "caches") {
      const { run: kernel, caches } = this;
      const unread = ask.since ? this.unread - 1 : this.unread;
      if (ask.since) this.unread = unread;
      return { reply: { kind: "caches", kernel, caches, notes: [], ...(unread > 0 ? { unread, since: 7 } : {}) } };
    }
    const row = this.caches.find(({ ref }) => ref.id === cache?.id);
    if (!row) return { failure: { code: "gone", message: "This cache was deleted." } };
    if (row.ref.state.split(".")[0] !== cache?.state.split(".")[0])
      return { failure: { code: "changed", message: "This cache was changed." } };
    return this.kernel(ask);
  }
  #add<T>(all: Set<T>, listener: T, signal: AbortSignal): void {
    all.add(listener);
    signal.addEventListener("abort", () => all.delete(listener), { once: true });
  }
}

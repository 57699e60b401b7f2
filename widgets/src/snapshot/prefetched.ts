// The kernel sends the replies to a panel's first requests in advance, while the page creates the view.
import type { Transport } from "../wire/client";
import type { Question } from "../wire/protocol.gen";
import { Relay } from "../wire/relay";
import { isRecorded } from "./requests";
import { type Entry, keyOf, type Snapshot } from "./snapshot";

/** The replies that py_backend/residscope/hosts/panel.py sends in advance. Empty once a view has opened. */
export type Opening = Partial<
  Pick<Snapshot, "selection" | "defaults"> & { entries: (Omit<Entry, "buffers"> & { buffers?: DataView[] })[] }
>;

type Listener = (message: unknown, buffers: DataView[]) => void;

/** A transport that has some replies in advance. It gives each of them once. All other requests go to the kernel. */
export class Prefetched extends Relay {
  readonly #unanswered = new Map<string, Question>();
  readonly #listeners = new Set<Listener>();
  #opening: Opening = {};

  constructor(transport: Transport, signal: AbortSignal) {
    super(transport);
    transport.onMessage((message) => this.#unanswered.delete((message as { id: string }).id), signal);
  }

  /** Adds replies. They also answer earlier requests that a busy kernel has not answered yet. */
  put(opening: Opening): void {
    this.#opening = opening;
    for (const question of [...this.#unanswered.values()])
      if (this.#answer(question)) this.#unanswered.delete(question.id);
  }

  override send(question: Question, buffers?: ArrayBuffer[]): void {
    if (this.#answer(question)) return;
    this.#unanswered.set(question.id, question);
    super.send(question, buffers);
  }
  override onMessage(listener: Listener, signal: AbortSignal): void {
    super.onMessage(listener, signal);
    this.#listeners.add(listener);
    signal.addEventListener("abort", () => this.#listeners.delete(listener), { once: true });
  }

  #answer({ id, ask }: Question): boolean {
    const { selection, defaults = {}, entries = [] } = this.#opening;
    // The opening may come from a notebook file. So only replies with numbers are taken from it, never code or a page.
    if (!selection || !isRecorded(ask.kind)) return false;
    const common = { selection, defaults };
    const key = keyOf(ask, common);
    const entry = entries.find((entry) => entry.ask.kind === ask.kind && keyOf(entry.ask, common) === key);
    if (!entry?.reply) return false;
    this.#opening = { ...this.#opening, entries: entries.filter((other) => other !== entry) };
    const { reply, buffers = [] } = entry;
    queueMicrotask(() => {
      for (const listener of [...this.#listeners]) listener({ id, reply }, buffers);
    });
    return true;
  }
}

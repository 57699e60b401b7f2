// One notebook's kernel as the views see it: their messages go by way of the extension.
import { type Link, type LinkState, type Question, signal as state } from "@residscope/widgets";
import type { ToPage } from "../src/messages";
import type { Host } from "./host";

type Listener = (message: unknown, buffers: DataView[]) => void;
/** What is told of one notebook. */
type Told = Extract<ToPage, { path: string }>;

export class HostLink implements Link {
  readonly state = state<LinkState>({ kind: "attaching", busy: false });
  readonly cells = state(0);
  readonly occupied = state(true);
  /** The notebook's toolbar shows each request. */
  readonly thrifty = true;
  /** Whether somebody answers; told a moment before the state says so. */
  #there = false;
  #outbox: Question[] = [];

  constructor(
    readonly path: string,
    readonly host: Host,
    readonly signal: AbortSignal,
  ) {
    this.#mine("renewed", () => (this.#there = true));
    this.#mine("lost", () => (this.#there = false));
    this.#mine("state", (message) => {
      this.#there ||= message.state.kind === "ready"; // attached to before this page came
      this.state.value = message.state;
    });
    this.#mine("occupied", ({ occupied }) => (this.occupied.value = occupied));
    this.#mine("cell", () => (this.cells.value += 1));
    host.post({ say: "attach", path });
  }

  send(question: Question): void {
    if (!this.#there) {
      if (this.state.peek().kind === "attaching") return; // asked again when the link is there
      throw new Error("No kernel is attached.");
    }
    // What is asked in one go travels as one.
    if (this.#outbox.push(question) > 1) return;
    queueMicrotask(() => this.host.post({ say: "ask", path: this.path, questions: this.#outbox.splice(0) }));
  }

  onMessage(listener: Listener, signal: AbortSignal): void {
    this.#mine(
      "answer",
      ({ answer, buffers }) =>
        listener(
          answer,
          buffers.map((buffer) => new DataView(buffer)),
        ),
      signal,
    );
  }

  onLost(listener: () => void, signal: AbortSignal): void {
    this.#mine("lost", listener, signal);
  }

  onRenewed(listener: () => void, signal: AbortSignal): void {
    this.#mine("renewed", listener, signal);
  }

  retry(): void {
    this.host.post({ say: "retry", path: this.path });
  }

  act(): void {
    this.host.post({ say: "act", path: this.path });
  }

  #mine<S extends Told["say"]>(
    say: S,
    listener: (message: Extract<Told, { say: S }>) => void,
    signal = this.signal,
  ): void {
    this.host.hear(
      say,
      (message) => {
        const told = message as Told; // whatever `say` is, it is one of these
        if (told.path === this.path) listener(told as Extract<Told, { say: S }>);
      },
      signal,
    );
  }
}

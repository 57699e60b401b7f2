// The views' link to one notebook's kernel. The extension passes the messages on.
import { type Link, type LinkState, type Question, signal as state } from "@residscope/widgets";
import type { ToPage } from "../src/messages";
import type { Host } from "./host";

type Listener = (message: unknown, buffers: DataView[]) => void;
/** A message about one notebook. */
type NotebookMessage = Extract<ToPage, { path: string }>;

export class HostLink implements Link {
  readonly state = state<LinkState>({ kind: "attaching", busy: false });
  readonly cells = state(0);
  readonly occupied = state(true);
  /** VS Code shows each request in the notebook's toolbar, so views should send few. */
  readonly thrifty = true;
  /** Whether the kernel answers. This is known shortly before `state` becomes "ready". */
  #isAttached = false;
  #outbox: Question[] = [];

  constructor(
    readonly path: string,
    readonly host: Host,
    readonly signal: AbortSignal,
  ) {
    this.#listenTo("renewed", () => (this.#isAttached = true));
    this.#listenTo("lost", () => (this.#isAttached = false));
    this.#listenTo("state", (message) => {
      this.#isAttached ||= message.state.kind === "ready"; // normally "renewed" came before
      this.state.value = message.state;
    });
    this.#listenTo("occupied", ({ occupied }) => (this.occupied.value = occupied));
    this.#listenTo("cell", () => (this.cells.value += 1));
    host.post({ say: "attach", path });
  }

  send(question: Question): void {
    if (!this.#isAttached) {
      if (this.state.peek().kind === "attaching") return; // the views send it again after "renewed"
      throw new Error("No kernel is attached.");
    }
    // Requests that are sent at the same time go as one message.
    if (this.#outbox.push(question) > 1) return;
    queueMicrotask(() => this.host.post({ say: "ask", path: this.path, questions: this.#outbox.splice(0) }));
  }

  onMessage(listener: Listener, signal: AbortSignal): void {
    this.#listenTo(
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
    this.#listenTo("lost", listener, signal);
  }

  onRenewed(listener: () => void, signal: AbortSignal): void {
    this.#listenTo("renewed", listener, signal);
  }

  retry(): void {
    this.host.post({ say: "retry", path: this.path });
  }

  act(): void {
    this.host.post({ say: "act", path: this.path });
  }

  #listenTo<S extends NotebookMessage["say"]>(
    say: S,
    listener: (message: Extract<NotebookMessage, { say: S }>) => void,
    signal = this.signal,
  ): void {
    this.host.onMessage(
      say,
      (message) => {
        const received = message as NotebookMessage; // TypeScript cannot derive this from `say`
        if (received.path === this.path) listener(received as Extract<NotebookMessage, { say: S }>);
      },
      signal,
    );
  }
}

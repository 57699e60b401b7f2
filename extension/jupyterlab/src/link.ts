/** The link to one kernel. It attaches without a visible change, sends and receives messages, and reports its state. */

import type { Kernel, KernelMessage } from "@jupyterlab/services";
import { UUID } from "@lumino/coreutils";
import {
  Attachment,
  isTurn,
  type Link,
  type LinkState,
  Listeners,
  listen,
  type Question,
  type ReadonlySignal,
  signal as state,
  takeTurn,
  whenIdleFor,
} from "@residscope/widgets";

import { attach } from "./handshake";
import { RunningCells } from "./running-cells";
import { createSubshell, deleteSubshell, sendComm } from "./subshell";

const TARGET = "residscope";
/** If the kernel is idle for this time while we attach, it was restarted and our request is lost: we attach again. */
const ATTACH_AGAIN_AFTER_MS = 3_000;

type Message = [message: unknown, buffers: DataView[]];

export class KernelLink implements Link {
  readonly state = state<LinkState>({ kind: "none", words: "" });
  /** How many cells have ended. */
  readonly cells = state(0);
  /** Whether a cell is (or may be) running. Then views request nothing in advance: answers would slow down the cell. */
  readonly occupied: ReadonlySignal<boolean>;
  readonly #messages = new Listeners<Message>();
  readonly #lost = new Listeners();
  readonly #renewed = new Listeners();
  readonly #attachment: Attachment;
  #kernel: Kernel.IKernelConnection | null = null;
  /** Ends the subscriptions to the kernel's signals. */
  #kernelEnd = new AbortController();
  #attached: { subshell: string | null; comm: string } | null = null;
  #isDisconnected = false;
  /** The session id of the kernel's present run. Each start of a kernel has a new id. */
  #run = "";
  readonly #running = new RunningCells();

  constructor(signal: AbortSignal) {
    this.occupied = this.#running.isRunning;
    this.#attachment = new Attachment(
      {
        state: (now) => (this.state.value = now),
        lost: () => this.#lost.notify(),
        renewed: () => this.#renewed.notify(),
      },
      this.state.peek(),
      signal,
    );
    signal.addEventListener("abort", () => this.use(null, ""), { once: true });
    // When the user leaves the page, the link closes the comm and the subshell. If the browser restores the page, the
    // link attaches again.
    window.addEventListener("pagehide", () => this.#detach(true), { signal });
    window.addEventListener("pageshow", (event) => event.persisted && this.retry(), { signal });
  }

  /** Links to this kernel, or to none. `words` is the sentence that says why there is no kernel. */
  use(kernel: Kernel.IKernelConnection | null, words: string): void {
    if (kernel && kernel === this.#kernel) return;
    this.#detach(true); // at once: when a notebook is closed, its connection is closed too, but its kernel runs on
    this.#kernelEnd.abort();
    const hadKernel = this.#kernel !== null;
    this.#kernel = kernel;
    this.#run = "";
    if (hadKernel) this.#lost.notify();
    if (!kernel) {
      this.#attachment.set({ kind: "none", words });
      return;
    }
    const { signal } = (this.#kernelEnd = new AbortController());
    this.#running.reset({ mayHaveEarlier: true });
    // A kernel replies to this request only after its running cell has ended.
    kernel.requestKernelInfo().then(
      () => !signal.aborted && this.#running.noEarlierCell(),
      () => undefined,
    );
    listen(kernel.iopubMessage, (message) => this.#onIopub(kernel, message), signal);
    listen(kernel.statusChanged, (status) => this.#onStatus(kernel, status), signal);
    listen(kernel.connectionStatusChanged, (status) => this.#onConnection(kernel, status), signal);
    void this.#attach(kernel);
  }

  retry(): void {
    if (this.#kernel) void this.#attach(this.#kernel);
  }

  // --- the views' transport -----------------------------------------------------------------------------------------
  send(question: Question): void {
    if (!this.#kernel || !this.#attached) {
      if (this.state.peek().kind === "attaching") return; // the views send it again when the link is ready
      throw new Error("No kernel is attached.");
    }
    // A failure needs no action here: either a reply still comes, or the loss of the kernel is reported.
    sendComm(this.#kernel, this.#attached.subshell, "comm_msg", { comm_id: this.#attached.comm, data: question }).catch(
      () => undefined,
    );
  }
  /** Makes the kernel run the model for a view, after the cells that are running or queued. */
  async takeTurn(token: string): Promise<void> {
    if (this.#kernel) await takeTurn(this.#kernel, token);
  }
  isCellRunning(): boolean {
    return this.occupied.peek();
  }
  onMessage(listener: (...message: Message) => void, signal: AbortSignal): void {
    this.#messages.add(listener, signal);
  }
  onLost(listener: () => void, signal: AbortSignal): void {
    this.#lost.add(listener, signal);
  }
  onRenewed(listener: () => void, signal: AbortSignal): void {
    this.#renewed.add(listener, signal);
  }

  // --- attaching ----------------------------------------------------------------------------------------------------
  async #attach(kernel: Kernel.IKernelConnection): Promise<void> {
    this.#detach();
    let subshell: string | null = null;
    await this.#attachment.attempt({
      reach: async (waiting, signal) => {
        whenIdleFor(
          ATTACH_AGAIN_AFTER_MS,
          () => kernel.status === "idle",
          waiting,
          () => void this.#attach(kernel),
        );
        let comm: string | null = null;
        try {
          subshell = await createSubshell(kernel);
          const outcome = await attach(kernel, subshell);
          if (outcome.kind !== "ready" || signal.aborted) return outcome;
          // Wait until the comm is open. If a message came earlier, the kernel would print an error to stderr.
          comm = UUID.uuid4();
          await sendComm(kernel, subshell, "comm_open", { comm_id: comm, target_name: TARGET, data: {} });
          if (!signal.aborted) this.#attached = { subshell, comm };
          return outcome;
        } finally {
          if (comm === null || this.#attached?.comm !== comm) void close(kernel, { subshell, comm });
        }
      },
      // On a subshell, attaching does not wait for a cell.
      busy: () => !subshell && kernel.status === "busy",
    });
  }

  #detach(atOnce = false): void {
    this.#attachment.end();
    const [kernel, attached] = [this.#kernel, this.#attached];
    this.#attached = null;
    if (kernel && attached) void close(kernel, attached, atOnce);
  }

  /** Called when the kernel has ended, has been restarted, or has closed the comm. */
  #lose(now: LinkState): void {
    this.#attached = null;
    this.#attachment.lose(now);
  }

  // --- the kernel's signals -----------------------------------------------------------------------------------------
  #onIopub(kernel: Kernel.IKernelConnection, message: KernelMessage.IMessage): void {
    const type: string = message.header.msg_type;
    // A new session id is the only sign that another page or a console has restarted the kernel.
    const run = message.header.session;
    const isRestarted = this.#attached && this.#run !== "" && run !== this.#run;
    this.#run = run;
    if (isRestarted) {
      this.#running.reset({ mayHaveEarlier: false });
      this.#lose({ kind: "attaching", busy: false });
      void this.#attach(kernel);
    }
    if (type === "status") {
      // A cell has started or ended. Another page or a console may have run it.
      const { execution_state: now } = message.content as KernelMessage.IStatusMsg["content"];
      if (!("msg_type" in message.parent_header) || message.parent_header.msg_type !== "execute_request") return;
      if (isTurn(message.parent_header.msg_id)) return; // the model is run for a view, of this page or another one
      if (now === "busy") this.#running.begins(message.parent_header.msg_id);
      if (now !== "idle") return;
      this.#running.ends(message.parent_header.msg_id);
      this.cells.value += 1;
      return;
    }
    if (type !== "comm_msg" && type !== "comm_close") return;
    const { comm_id: comm, data } = message.content as KernelMessage.ICommMsgMsg["content"];
    if (comm !== this.#attached?.comm) return;
    if (type === "comm_close")
      return this.#lose({ kind: "refused", words: "The kernel’s side of Residscope has closed." });
    const buffers = (message.buffers ?? []).map((b) =>
      ArrayBuffer.isView(b) ? new DataView(b.buffer as ArrayBuffer, b.byteOffset, b.byteLength) : new DataView(b),
    );
    this.#messages.notify(data, buffers);
  }

  #onStatus(kernel: Kernel.IKernelConnection, status: Kernel.Status): void {
    if (status === "restarting" || status === "autorestarting" || status === "dead")
      this.#running.reset({ mayHaveEarlier: false });
    if (status === "restarting" || status === "autorestarting") this.#lose({ kind: "attaching", busy: false });
    else if (status === "dead")
      this.#lose({ kind: "none", words: "The kernel has died. Restart it, and run the cells again." });
    else if ((status === "idle" || status === "busy") && !this.#attached && this.#attachment.signal.aborted)
      void this.#attach(kernel);
  }

  #onConnection(kernel: Kernel.IKernelConnection, status: Kernel.ConnectionStatus): void {
    // If the connection breaks, unanswered requests may be lost. After attaching again, the views send them again.
    if (status === "connected" && this.#isDisconnected && this.state.peek().kind !== "refused")
      void this.#attach(kernel);
    this.#isDisconnected = status !== "connected";
  }
}

/** Closes the comm, then its subshell. If `atOnce`, it does not wait between the two. */
async function close(
  kernel: Kernel.IKernelConnection,
  { subshell, comm }: { subshell: string | null; comm: string | null },
  atOnce = false,
): Promise<void> {
  try {
    const closed = comm ? sendComm(kernel, subshell, "comm_close", { comm_id: comm, data: {} }) : Promise.resolve();
    if (atOnce)
      closed.catch(() => undefined); // the connection may be closed before the reply arrives
    else await closed;
    if (subshell) deleteSubshell(kernel, subshell);
  } catch {
    // The kernel has ended, and so have its comm and its subshell.
  }
}

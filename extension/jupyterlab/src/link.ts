/** The link to one kernel: attaches without a trace, carries the views' messages, and reports its state. */

import type { Kernel, KernelMessage } from "@jupyterlab/services";
import { UUID } from "@lumino/coreutils";
import {
  Attachment,
  type Link,
  type LinkState,
  Listeners,
  listen,
  type Question,
  type ReadonlySignal,
  signal as state,
  whenIdleFor,
} from "@residscope/widgets";

import { greet } from "./greet";
import { Running } from "./running";
import { createSubshell, deleteSubshell, sendComm } from "./subshell";

const TARGET = "residscope";
/** If a kernel is idle for this long and has not answered, it was restarted, and the request is lost. */
const PATIENCE_MS = 3_000;

type Message = [message: unknown, buffers: DataView[]];

export class KernelLink implements Link {
  readonly state = state<LinkState>({ kind: "none", words: "" });
  readonly cells = state(0);
  /** Whether a cell is running. Meanwhile views request nothing in advance, because it would slow the cell down. */
  readonly occupied: ReadonlySignal<boolean>;
  readonly #messages = new Listeners<Message>();
  readonly #lost = new Listeners();
  readonly #renewed = new Listeners();
  readonly #attachment: Attachment;
  #kernel: Kernel.IKernelConnection | null = null;
  #heard = new AbortController();
  #attached: { subshell: string | null; comm: string } | null = null;
  #dropped = false;
  #run = "";
  readonly #running = new Running();

  constructor(signal: AbortSignal) {
    this.occupied = this.#running.any;
    this.#attachment = new Attachment(
      {
        state: (now) => (this.state.value = now),
        lost: () => this.#lost.tell(),
        renewed: () => this.#renewed.tell(),
      },
      this.state.peek(),
      signal,
    );
    signal.addEventListener("abort", () => this.use(null, ""), { once: true });
    // A page that is left closes its comm and its subshell. A page that the browser restores attaches again.
    window.addEventListener("pagehide", () => this.#detach(true), { signal });
    window.addEventListener("pageshow", (event) => event.persisted && this.retry(), { signal });
  }

  /** Links to this kernel, or to none; `words` say why there is none. */
  use(kernel: Kernel.IKernelConnection | null, words: string): void {
    if (kernel && kernel === this.#kernel) return;
    this.#detach(true); // at once: closing a notebook closes its connection, but not its kernel
    this.#heard.abort();
    const had = this.#kernel !== null;
    this.#kernel = kernel;
    this.#run = "";
    if (had) this.#lost.tell();
    if (!kernel) {
      this.#attachment.set({ kind: "none", words });
      return;
    }
    const { signal } = (this.#heard = new AbortController());
    this.#running.reset({ earlier: true });
    // A kernel replies to this only after its running cell has ended.
    kernel.requestKernelInfo().then(
      () => !signal.aborted && this.#running.noneEarlier(),
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
    // The result is known by the reply, or by the loss of the kernel.
    sendComm(this.#kernel, this.#attached.subshell, "comm_msg", { comm_id: this.#attached.comm, data: question }).catch(
      () => undefined,
    );
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
          PATIENCE_MS,
          () => kernel.status === "idle",
          waiting,
          () => void this.#attach(kernel),
        );
        let comm: string | null = null;
        try {
          subshell = await createSubshell(kernel);
          const outcome = await greet(kernel, subshell);
          if (outcome.kind !== "ready" || signal.aborted) return outcome;
          // Wait until it is open: a message to a comm that is not open yet makes the kernel print an error to stderr.
          comm = UUID.uuid4();
          await sendComm(kernel, subshell, "comm_open", { comm_id: comm, target_name: TARGET, data: {} });
          if (!signal.aborted) this.#attached = { subshell, comm };
          return outcome;
        } finally {
          if (comm === null || this.#attached?.comm !== comm) void leave(kernel, { subshell, comm });
        }
      },
      // With a subshell, it does not wait for a cell.
      busy: () => !subshell && kernel.status === "busy",
    });
  }

  #detach(atOnce = false): void {
    this.#attachment.end();
    const [kernel, attached] = [this.#kernel, this.#attached];
    this.#attached = null;
    if (kernel && attached) void leave(kernel, attached, atOnce);
  }

  /** The kernel ended the attachment. */
  #lose(now: LinkState): void {
    this.#attached = null;
    this.#attachment.lose(now);
  }

  // --- the kernel's signals -----------------------------------------------------------------------------------------
  #onIopub(kernel: Kernel.IKernelConnection, message: KernelMessage.IMessage): void {
    const type: string = message.header.msg_type;
    // Every run of a kernel has its own session. Nothing else shows a restart by another page or a console.
    const run = message.header.session;
    const restarted = this.#attached && this.#run !== "" && run !== this.#run;
    this.#run = run;
    if (restarted) {
      this.#running.reset({ earlier: false });
      this.#lose({ kind: "attaching", busy: false });
      void this.#attach(kernel);
    }
    if (type === "status") {
      // A cell has started or ended, also one that another page or a console runs.
      const { execution_state: now } = message.content as KernelMessage.IStatusMsg["content"];
      if (!("msg_type" in message.parent_header) || message.parent_header.msg_type !== "execute_request") return;
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
    this.#messages.tell(data, buffers);
  }

  #onStatus(kernel: Kernel.IKernelConnection, status: Kernel.Status): void {
    if (status === "restarting" || status === "autorestarting" || status === "dead")
      this.#running.reset({ earlier: false });
    if (status === "restarting" || status === "autorestarting") this.#lose({ kind: "attaching", busy: false });
    else if (status === "dead")
      this.#lose({ kind: "none", words: "The kernel has died. Restart it, and run the cells again." });
    else if ((status === "idle" || status === "busy") && !this.#attached && this.#attachment.signal.aborted)
      void this.#attach(kernel);
  }

  #onConnection(kernel: Kernel.IKernelConnection, status: Kernel.ConnectionStatus): void {
    // Requests that were running when the network dropped may be lost. After attaching again, they are sent again.
    if (status === "connected" && this.#dropped && this.state.peek().kind !== "refused") void this.#attach(kernel);
    this.#dropped = status !== "connected";
  }
}

/** Closes the comm, then its subshell; both at once if there is no time to wait. */
async function leave(
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
    // The kernel has ended, and both with it.
  }
}

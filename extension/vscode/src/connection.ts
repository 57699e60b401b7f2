/** The connection to a notebook's kernel. It attaches to the kernel, sends the pages' requests, and reports a state. */

import type { Answer, LinkState, Question } from "@residscope/widgets";
import {
  Attachment,
  type AttachmentListener,
  asKernelInfo,
  attachAndDescribe,
  child,
  linkStateFor,
  listen,
  newToken,
  Pieces,
  refusal,
  requestExpression,
  whenIdleFor,
} from "@residscope/widgets/node";
import type { Kernel } from "@vscode/jupyter-extension";
import type { Uri } from "vscode";

import attachCode from "../../../py_backend/residscope/hosts/attach.py";
import { version } from "../package.json";
import { ASKED, DENIED, DIED, isDead, isKernel, isRestarting, kernelOf, manageAccess, mayHelp } from "./jupyter";
import { type LastKernel, noKernel } from "./no-kernel";
import { Refused, run } from "./run";

/** If a request waits for this time although the kernel is idle, VS Code does not pass the request to the kernel. */
const BLOCKED_AFTER_MS = 5000;
/** How long to wait until a lost kernel runs again: after a restart, or if it is dead or was replaced. */
const ATTACH_AGAIN_AFTER_MS = { restarted: 15_000, another: 2_000 };
const CLOSED = "This notebook is not open. Open it and run its cells. Until then, the last picture stays.";
const LOST = "This reply was too long for the connection to the kernel, and a part of it was lost.";

export interface Listener extends AttachmentListener {
  occupied(now: boolean): void;
}

type Deliver = (answer: Answer, buffers: ArrayBuffer[]) => void;

interface Waiting {
  question: Question;
  deliver: Deliver;
}

export class Connection {
  occupied = false;
  /** Whether the notebook is open. */
  #isOpen = true;
  /** The kernel that is attached, or is being attached. */
  #kernel: Kernel | null = null;
  readonly #attachment: Attachment;
  #waiting: Waiting[] = [];
  /** The signal of the attachment over which requests are being sent; null if none are. */
  #sending: AbortSignal | null = null;
  /** Whether the last request failed. One failure may come from an interrupt or a restart; two in a row do not. */
  #hasFailed = false;
  /** Whether access was denied. Only the user can change this. */
  #isDenied = false;
  /** The number of running cells. */
  #cells: number;
  /** While we wait for a lost kernel: a signal that aborts when the kernel runs again or time is up. Otherwise null. */
  #returning: AbortSignal | null = null;

  constructor(
    readonly notebook: Uri,
    readonly listener: Listener,
    readonly signal: AbortSignal,
    public lastKernel: LastKernel = { cause: "none" },
    /** The number of cells that are already running. */
    cells = 0,
  ) {
    this.#attachment = new Attachment(
      {
        state: (now) => listener.state(now),
        lost: () => {
          listener.lost();
          this.#updateOccupied();
        },
        renewed: () => {
          this.#waiting = []; // the pages send these requests again
          listener.renewed();
        },
      },
      { kind: "attaching", busy: false },
      signal,
    );
    this.#cells = cells;
  }

  get state(): LinkState {
    return this.#attachment.state;
  }

  /** Attaches to the present kernel. */
  async attach(): Promise<void> {
    if (!this.#isOpen) return;
    this.#kernel = this.#returning = null;
    this.#isDenied = false;
    await this.#attachment.attempt({
      reach: async (waiting, signal) => {
        const outcome = await this.#reach(waiting, signal).catch(refused);
        if (!signal.aborted) this.#isDenied = outcome === DENIED;
        return outcome;
      },
      // If no cell is running, attaching can only wait for the user to answer VS Code's question.
      busy: () => this.#cells > 0,
    });
  }

  async #reach(waiting: AbortSignal, signal: AbortSignal): Promise<LinkState | null> {
    const kernelOrState = await kernelOf(this.notebook);
    if (signal.aborted) return null;
    if (!isKernel(kernelOrState))
      return kernelOrState ?? (this.#cells > 0 ? { kind: "attaching", busy: true } : noKernel(this.lastKernel));
    const kernel = kernelOrState;
    if (isRestarting(kernel.status)) {
      this.#waitFor(kernel, "restarted");
      return null;
    }
    if (isDead(kernel.status)) {
      this.#attachWhenRunning(kernel, signal);
      return DIED;
    }
    this.#listenTo(kernel, signal);
    // The attempt continues, and succeeds if the user allows the access later.
    whenIdleFor(
      BLOCKED_AFTER_MS,
      () => this.#isIdle(kernel),
      waiting,
      () => this.#attachment.set(ASKED),
    );
    return attachTo(kernel, signal);
  }

  /** Sends a request. If the kernel is lost before it answers, the page sends the request again later. */
  ask(question: Question, deliver: Deliver): void {
    this.#waiting.push({ question, deliver });
    queueMicrotask(() => void this.#sendBatches()); // so that requests from one moment are one batch
  }

  /** Called when a cell of the notebook has started, or has ended. */
  cell(started: boolean): void {
    this.#cells = Math.max(0, this.#cells + (started ? 1 : -1));
    this.#updateOccupied();
    // VS Code gives access to a kernel only after its first cell has ended.
    if (started && mayHelp(this.state)) this.#attachment.set({ kind: "attaching", busy: true });
    void this.#checkKernel(!started);
  }

  /** Called when the notebook was closed, or opened again. `name` is the cache that was shown before. */
  setOpen(isOpen: boolean, name: string | null = null): void {
    if (isOpen === this.#isOpen) return;
    this.#isOpen = isOpen;
    this.#cells = 0;
    this.lastKernel = name === null ? { cause: "none" } : { cause: "notebook", name };
    if (isOpen) void this.attach();
    else this.#lose({ kind: "none", words: CLOSED });
  }

  /** Lets the user choose which extensions may use kernels, and tries again. */
  async act(): Promise<void> {
    try {
      await manageAccess();
    } catch (error) {
      return this.#attachment.set(refused(error));
    }
    await this.attach();
  }

  // --- requests -----------------------------------------------------------------------------------------------------
  /** Sends the waiting requests in batches, one after another. So the user's next cell waits for at most one batch. */
  async #sendBatches(): Promise<void> {
    const { signal } = this.#attachment;
    if (this.#sending === signal) return;
    this.#sending = signal;
    while (!signal.aborted && this.#kernel && this.state.kind === "ready" && this.#waiting.length > 0) {
      this.#updateOccupied();
      await this.#sendBatch(this.#kernel, signal, this.#waiting.splice(0));
    }
    if (this.#sending === signal) this.#sending = null;
    this.#updateOccupied();
  }

  async #sendBatch(kernel: Kernel, signal: AbortSignal, waiting: Waiting[]): Promise<void> {
    const unanswered = new Map(waiting.map((request) => [request.question.id, request]));
    const untilOutput = child(signal);
    whenIdleFor(
      BLOCKED_AFTER_MS,
      () => this.#isIdle(kernel),
      untilOutput.signal,
      () => this.#deny(),
    );
    const pieces = new Pieces(unanswered.keys());
    const token = newToken();
    let trouble: unknown = null;
    try {
      for await (const output of run(
        kernel,
        requestExpression(
          token,
          waiting.map(({ question }) => question),
        ),
        token,
      )) {
        if (signal.aborted) return; // the kernel is lost, and this was reported
        untilOutput.abort(); // VS Code is running the request; a large reply may take long
        const answered = pieces.take(output);
        if (!answered) continue;
        unanswered.get(answered.answer.id)?.deliver(answered.answer, answered.buffers);
        unanswered.delete(answered.answer.id);
      }
    } catch (error) {
      trouble = error;
    } finally {
      untilOutput.abort();
    }
    if (signal.aborted) return;
    for (const [id, { deliver }] of unanswered) {
      if (!pieces.hasBegun(id)) continue;
      deliver({ id, failure: { code: "too-long", message: LOST } }, []);
      unanswered.delete(id);
    }
    if (unanswered.size === 0) this.#hasFailed = false;
    else this.#fail(trouble);
  }

  /** Called when some requests got no reply. After attaching again, the pages send these requests again. */
  #fail(trouble: unknown): void {
    const isSecond = this.#hasFailed;
    this.#hasFailed = true;
    if (trouble instanceof Refused) return this.#deny();
    if (isSecond) return this.#lose(refused(trouble ?? new Error("VS Code ended the request without running it.")));
    this.#lose({ kind: "attaching", busy: false });
    void this.attach();
  }

  /** Called when VS Code denies access, or does not run requests. */
  #deny(): void {
    this.#isDenied = true;
    this.#lose(DENIED);
  }

  #isIdle(kernel: Kernel): boolean {
    return kernel.status === "idle" && this.#cells === 0;
  }

  #updateOccupied(): void {
    const now = this.#cells > 0 || this.#sending !== null;
    if (now === this.occupied) return;
    this.occupied = now;
    this.listener.occupied(now);
  }

  // --- the kernel ---------------------------------------------------------------------------------------------------
  /**
   * Checks the kernel after a cell has started or ended. The user may have started the first kernel, chosen another
   * one, or installed a missing package.
   */
  async #checkKernel(hasEnded: boolean): Promise<void> {
    const kernelOrState = await kernelOf(this.notebook).catch(() => undefined);
    if (kernelOrState === undefined || this.signal.aborted || !this.#isOpen) return;
    const { kind } = this.state;
    if (isKernel(kernelOrState)) {
      const { status } = kernelOrState;
      if (isRestarting(status) || isDead(status)) return; // `#waitFor` and `#attachWhenRunning` handle this
      const isSame = kernelOrState === this.#kernel;
      if (this.#isDenied && (isSame || this.#kernel === null)) return; // only the user can allow it
      if (isSame && (!hasEnded || kind === "ready" || kind === "attaching")) return;
    } else if (kind !== "ready" && (kind !== "attaching" || this.#kernel || this.#returning || !hasEnded)) return;
    if (kind === "ready") this.#lose({ kind: "attaching", busy: false });
    await this.attach();
  }

  #listenTo(kernel: Kernel, signal: AbortSignal): void {
    this.#kernel = kernel;
    listen(
      kernel.onDidChangeStatus,
      (status) => {
        if (isRestarting(status)) this.#waitFor(kernel, "restarted");
        else if (isDead(status)) this.#waitFor(kernel, "another");
        else if (status === "idle") {
          this.#cells = 0; // VS Code does not report the end of cells that were cancelled, or deleted while they ran
          this.#updateOccupied();
        }
      },
      signal,
    );
  }

  /**
   * Called when the kernel restarts, has ended, or is replaced by another one. VS Code may report "dead" in all three
   * cases. So this waits until the kernel runs again, or for a limited time, and then attaches again.
   */
  #waitFor(kernel: Kernel, cause: keyof typeof ATTACH_AGAIN_AFTER_MS): void {
    this.#cells = 0;
    this.lastKernel = { cause };
    this.#lose({ kind: "attaching", busy: false });
    const signal = this.#attachment.renew();
    this.#returning = signal;
    this.#attachWhenRunning(kernel, signal);
    const timeout = setTimeout(() => void this.attach(), ATTACH_AGAIN_AFTER_MS[cause]);
    signal.addEventListener("abort", () => clearTimeout(timeout), { once: true });
  }

  /** Attaches when this kernel runs again. */
  #attachWhenRunning(kernel: Kernel, signal: AbortSignal): void {
    listen(
      kernel.onDidChangeStatus,
      (status) => {
        if (status === "idle" || status === "busy") void this.attach();
      },
      signal,
    );
  }

  /** Forgets the kernel and all waiting requests, and reports this state. */
  #lose(now: LinkState): void {
    this.#kernel = this.#returning = null;
    this.#sending = null;
    this.#waiting = [];
    this.#attachment.lose(now);
  }
}

/** Tries twice, because an interrupt of a cell also cancels the code that waits for this cell. */
async function attachTo(kernel: Kernel, signal: AbortSignal): Promise<LinkState> {
  for (let attempt = 0; attempt < 2 && !signal.aborted; attempt += 1) {
    const token = newToken();
    for await (const { info } of run(kernel, attachAndDescribe(attachCode, token), token))
      return linkStateFor(asKernelInfo(info), version, "reload the window");
  }
  return DENIED;
}

function refused(error: unknown): LinkState {
  return error instanceof Refused ? DENIED : refusal("ask", error);
}

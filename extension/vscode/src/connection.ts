/** The connection to one notebook's kernel: attaches without a trace, sends the requests of pages, and reports its state. */

import type { Answer, LinkState, Question } from "@residscope/widgets";
import {
  Attachment,
  asKernelInfo,
  child,
  judge,
  listen,
  refusal,
  type Told,
  whenIdleFor,
} from "@residscope/widgets/node";
import type { Kernel } from "@vscode/jupyter-extension";
import type { Uri } from "vscode";

import { version } from "../package.json";
import { absent, type Past } from "./absence";
import { asking, greeting, newToken } from "./expressions";
import { ASKED, DENIED, DIED, isDead, isKernel, isRestarting, kernelOf, manageAccess, maySoonBeThere } from "./jupyter";
import { Pieces } from "./pieces";
import { Refused, run } from "./run";

/** If a kernel is idle for this long and does not run a request, VS Code is not passing the request on. */
const PATIENCE_MS = 5000;
/**
 * How long to wait for a kernel: after a restart, and when it looks dead or may have been replaced by another one.
 */
const BACK_MS = { restarted: 15_000, another: 2_000 };
const CLOSED = "This notebook is not open. Open it and run its cells; until then the last picture stays.";
const LOST = "This answer was too long for the connection to the kernel, and a part of it was lost.";

export interface Listener extends Told {
  occupied(now: boolean): void;
}

type Deliver = (answer: Answer, buffers: ArrayBuffer[]) => void;

interface Waiting {
  question: Question;
  deliver: Deliver;
}

export class Connection {
  occupied = false;
  #open = true;
  /** The kernel that is attached, or being attached. */
  #kernel: Kernel | null = null;
  readonly #attachment: Attachment;
  #waiting: Waiting[] = [];
  #sending: AbortSignal | null = null;
  /** Whether the last request failed. One failure may be an interrupt or a restart; two in a row are not. */
  #failed = false;
  /** Whether access was denied, which only the user can change. */
  #denied = false;
  #cells: number;
  /** While a kernel has gone but may come back. Aborted when it is back, or when it is known that it will not be. */
  #returning: AbortSignal | null = null;

  constructor(
    readonly notebook: Uri,
    readonly tell: Listener,
    readonly signal: AbortSignal,
    /** What happened to the previous kernel. */
    public past: Past = { what: "none" },
    /** The number of cells that are already running. */
    cells = 0,
  ) {
    this.#attachment = new Attachment(
      {
        state: (now) => tell.state(now),
        lost: () => {
          tell.lost();
          this.#occupy();
        },
        renewed: () => {
          this.#waiting = []; // the pages send all of these requests again
          tell.renewed();
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
    if (!this.#open) return;
    this.#kernel = this.#returning = null;
    this.#denied = false;
    await this.#attachment.attempt({
      reach: async (waiting, signal) => {
        const outcome = await this.#reach(waiting, signal).catch(refused);
        if (!signal.aborted) this.#denied = outcome === DENIED;
        return outcome;
      },
      // It can only wait for a cell, or for a question that VS Code asks the user.
      busy: () => this.#cells > 0,
    });
  }

  async #reach(waiting: AbortSignal, signal: AbortSignal): Promise<LinkState | null> {
    const found = await kernelOf(this.notebook);
    if (signal.aborted) return null;
    if (!isKernel(found)) return found ?? (this.#cells > 0 ? { kind: "attaching", busy: true } : absent(this.past));
    if (isRestarting(found.status)) {
      this.#leave(found, "restarted");
      return null;
    }
    if (isDead(found.status)) {
      this.#attachWhenRunning(found, signal);
      return DIED;
    }
    this.#listenTo(found, signal);
    // The attempt continues: if the user allows it later, it succeeds.
    whenIdleFor(
      PATIENCE_MS,
      () => this.#idle(found),
      waiting,
      () => this.#attachment.set(ASKED),
    );
    return greet(found, signal);
  }

  /** Sends a request. It is answered; or the kernel is lost, and the page sends it again when a kernel is attached. */
  ask(question: Question, deliver: Deliver): void {
    this.#waiting.push({ question, deliver });
    queueMicrotask(() => void this.#run()); // what a page asks for in one turn is sent together
  }

  /** A cell of the notebook has started, or ended. */
  cell(started: boolean): void {
    this.#cells = Math.max(0, this.#cells + (started ? 1 : -1));
    this.#occupy();
    // VS Code gives access to a kernel only after its first cell has ended, so this waits for that cell.
    if (started && maySoonBeThere(this.state)) this.#attachment.set({ kind: "attaching", busy: true });
    void this.#look(!started);
  }

  /** The notebook was closed, or opened again. `name` is the cache that was shown before. */
  close(open = false, name: string | null = null): void {
    if (open === this.#open) return;
    this.#open = open;
    this.#cells = 0;
    this.past = name === null ? { what: "none" } : { what: "notebook", name };
    if (open) void this.attach();
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
  /** Sends all waiting requests together, one batch at a time, so that the user's next cell waits for at most one batch. */
  async #run(): Promise<void> {
    const { signal } = this.#attachment;
    if (this.#sending === signal) return;
    this.#sending = signal;
    while (!signal.aborted && this.#kernel && this.state.kind === "ready" && this.#waiting.length > 0) {
      this.#occupy();
      await this.#request(this.#kernel, signal, this.#waiting.splice(0));
    }
    if (this.#sending === signal) this.#sending = null;
    this.#occupy();
  }

  async #request(kernel: Kernel, signal: AbortSignal, waiting: Waiting[]): Promise<void> {
    const unanswered = new Map(waiting.map((one) => [one.question.id, one]));
    const untilOutput = child(signal);
    whenIdleFor(
      PATIENCE_MS,
      () => this.#idle(kernel),
      untilOutput.signal,
      () => this.#deny(),
    );
    const pieces = new Pieces(unanswered.keys());
    const token = newToken();
    let trouble: unknown = null;
    try {
      for await (const output of run(
        kernel,
        asking(
          token,
          waiting.map(({ question }) => question),
        ),
        token,
      )) {
        if (signal.aborted) return; // the kernel was lost meanwhile, which was reported
        untilOutput.abort(); // an output shows that code may run; a large answer may take long
        const whole = pieces.take(output);
        if (!whole) continue;
        unanswered.get(whole.answer.id)?.deliver(whole.answer, whole.buffers);
        unanswered.delete(whole.answer.id);
      }
    } catch (error) {
      trouble = error;
    } finally {
      untilOutput.abort();
    }
    if (signal.aborted) return;
    for (const [id, { deliver }] of unanswered) {
      if (!pieces.began(id)) continue;
      deliver({ id, failure: { code: "too-long", message: LOST } }, []);
      unanswered.delete(id);
    }
    if (unanswered.size === 0) this.#failed = false;
    else this.#fail(trouble);
  }

  /** Requests were left unanswered. After attaching again, the pages send them again. */
  #fail(trouble: unknown): void {
    const again = this.#failed;
    this.#failed = true;
    if (trouble instanceof Refused) return this.#deny();
    if (again) return this.#lose(refused(trouble ?? new Error("VS Code ended the request without running it.")));
    this.#lose({ kind: "attaching", busy: false });
    void this.attach();
  }

  /** VS Code denies access, or does not run a request. */
  #deny(): void {
    this.#denied = true;
    this.#lose(DENIED);
  }

  #idle(kernel: Kernel): boolean {
    return kernel.status === "idle" && this.#cells === 0;
  }

  #occupy(): void {
    const now = this.#cells > 0 || this.#sending !== null;
    if (now === this.occupied) return;
    this.occupied = now;
    this.tell.occupied(now);
  }

  // --- the kernel ---------------------------------------------------------------------------------------------------
  /**
   * Checks the kernel after a cell has started or ended: the user may have chosen another kernel, started the first
   * one, or installed what was missing.
   */
  async #look(ended: boolean): Promise<void> {
    const found = await kernelOf(this.notebook).catch(() => undefined);
    if (found === undefined || this.signal.aborted || !this.#open) return;
    const { kind } = this.state;
    if (isKernel(found)) {
      if (isRestarting(found.status) || isDead(found.status)) return; // their status changes are listened to
      const same = found === this.#kernel;
      if (this.#denied && (same || this.#kernel === null)) return; // only the user can change it
      if (same && (!ended || kind === "ready" || kind === "attaching")) return;
    } else if (kind !== "ready" && (kind !== "attaching" || this.#kernel || this.#returning || !ended)) return;
    if (kind === "ready") this.#lose({ kind: "attaching", busy: false });
    await this.attach();
  }

  #listenTo(kernel: Kernel, signal: AbortSignal): void {
    this.#kernel = kernel;
    listen(
      kernel.onDidChangeStatus,
      (status) => {
        if (isRestarting(status)) this.#leave(kernel, "restarted");
        else if (isDead(status)) this.#leave(kernel, "another");
        else if (status === "idle") {
          this.#cells = 0; // also counts cells that were cancelled, or deleted while they ran
          this.#occupy();
        }
      },
      signal,
    );
  }

  /**
   * A kernel is leaving: it restarts (and is reported dead meanwhile), it has ended, or another one replaces it. The
   * state shows which, once it is known.
   */
  #leave(kernel: Kernel, what: keyof typeof BACK_MS): void {
    this.#cells = 0;
    this.past = { what };
    this.#lose({ kind: "attaching", busy: false });
    const signal = this.#attachment.renew();
    this.#returning = signal;
    this.#attachWhenRunning(kernel, signal);
    const timeout = setTimeout(() => void this.attach(), BACK_MS[what]);
    signal.addEventListener("abort", () => clearTimeout(timeout), { once: true });
  }

  /** Attaches once this kernel runs again. */
  #attachWhenRunning(kernel: Kernel, signal: AbortSignal): void {
    listen(
      kernel.onDidChangeStatus,
      (status) => {
        if (status === "idle" || status === "busy") void this.attach();
      },
      signal,
    );
  }

  /** Drops the kernel and all waiting requests, and reports this state. */
  #lose(now: LinkState): void {
    this.#kernel = this.#returning = null;
    this.#sending = null;
    this.#waiting = [];
    this.#attachment.lose(now);
  }
}

/** Tries twice: if the user interrupts a cell, all code that waits behind it is cancelled, too. */
async function greet(kernel: Kernel, signal: AbortSignal): Promise<LinkState> {
  for (let attempt = 0; attempt < 2 && !signal.aborted; attempt += 1) {
    const token = newToken();
    for await (const { who } of run(kernel, greeting(token), token))
      return judge(asKernelInfo(who), version, "reload the window");
  }
  return DENIED;
}

function refused(error: unknown): LinkState {
  return error instanceof Refused ? DENIED : refusal("ask", error);
}

/** The way to one notebook's kernel: attaches without a trace, asks what pages ask, and says how things stand. */

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

/** As long as this a kernel may be idle, and leave a request lying: then VS Code does not hand it over. */
const PATIENCE_MS = 5000;
/**
 * As long as this a kernel may be on its way back: after a restart, and where it only looks dead or may be another one.
 */
const BACK_MS = { restarted: 15_000, another: 2_000 };
const CLOSED = "This notebook is not open. Open it, and run its cells: the last picture stays.";
const LOST = "This answer was too long for the connection to the kernel: a part of it was lost on the way.";

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
  /** The kernel that is attached to, or on the way to be. */
  #kernel: Kernel | null = null;
  readonly #attachment: Attachment;
  #waiting: Waiting[] = [];
  #asking: AbortSignal | null = null;
  /** Whether the last request came to nothing: once that may be an interrupt or a restart, twice it is not. */
  #failed = false;
  /** Whether only the user can do something about it. */
  #denied = false;
  #cells: number;
  /** A kernel that went, and may come back; ends when it does, or when it is known that it does not. */
  #going: AbortSignal | null = null;

  constructor(
    readonly notebook: Uri,
    readonly tell: Listener,
    readonly signal: AbortSignal,
    /** What has become of the kernel that there was. */
    public past: Past = { what: "none" },
    /** The cells that run there already. */
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
          this.#waiting = []; // all of it is asked again
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

  /** Attaches to the kernel that is there now. */
  async attach(): Promise<void> {
    if (!this.#open) return;
    this.#kernel = this.#going = null;
    this.#denied = false;
    await this.#attachment.attempt({
      reach: async (waiting, signal) => {
        const outcome = await this.#reach(waiting, signal).catch(refused);
        if (!signal.aborted) this.#denied = outcome === DENIED;
        return outcome;
      },
      // Nothing but a cell, or a question of VS Code's own, makes it wait: both are the user's to answer.
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
      this.#await(found, signal);
      return DIED;
    }
    this.#hear(found, signal);
    // It goes on: whoever allows it later need not try again.
    whenIdleFor(
      PATIENCE_MS,
      () => this.#idle(found),
      waiting,
      () => this.#attachment.set(ASKED),
    );
    return greet(found, signal);
  }

  /** Asks a question; it is answered, or the kernel is lost and the question is asked again when it is found. */
  ask(question: Question, deliver: Deliver): void {
    this.#waiting.push({ question, deliver });
    queueMicrotask(() => void this.#run()); // what a page asks in one go is one request
  }

  /** A cell of the notebook has started, or ended. */
  cell(started: boolean): void {
    this.#cells = Math.max(0, this.#cells + (started ? 1 : -1));
    this.#occupy();
    // A kernel is to be had when its first cell has ended; until then it is that cell which is waited for.
    if (started && maySoonBeThere(this.state)) this.#attachment.set({ kind: "attaching", busy: true });
    void this.#look(!started);
  }

  /** The notebook was closed, or opened again; `name`: the cache that was looked at before. */
  close(open = false, name: string | null = null): void {
    if (open === this.#open) return;
    this.#open = open;
    this.#cells = 0;
    this.past = name === null ? { what: "none" } : { what: "notebook", name };
    if (open) void this.attach();
    else this.#lose({ kind: "none", words: CLOSED });
  }

  /** Lets the user say who may use kernels, and tries again. */
  async act(): Promise<void> {
    try {
      await manageAccess();
    } catch (error) {
      return this.#attachment.set(refused(error));
    }
    await this.attach();
  }

  // --- asking -------------------------------------------------------------------------------------------------------
  /** One request at a time holds all that wait: the user's next cell stands behind no more than that. */
  async #run(): Promise<void> {
    const { signal } = this.#attachment;
    if (this.#asking === signal) return;
    this.#asking = signal;
    while (!signal.aborted && this.#kernel && this.state.kind === "ready" && this.#waiting.length > 0) {
      this.#occupy();
      await this.#request(this.#kernel, signal, this.#waiting.splice(0));
    }
    if (this.#asking === signal) this.#asking = null;
    this.#occupy();
  }

  async #request(kernel: Kernel, signal: AbortSignal, waiting: Waiting[]): Promise<void> {
    const asked = new Map(waiting.map((one) => [one.question.id, one]));
    const waits = child(signal);
    whenIdleFor(
      PATIENCE_MS,
      () => this.#idle(kernel),
      waits.signal,
      () => this.#deny(),
    );
    const pieces = new Pieces(asked.keys());
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
        if (signal.aborted) return; // lost meanwhile, which was told
        waits.abort(); // who may not run code hears nothing; a large answer may travel for long
        const whole = pieces.take(output);
        if (!whole) continue;
        asked.get(whole.answer.id)?.deliver(whole.answer, whole.buffers);
        asked.delete(whole.answer.id);
      }
    } catch (error) {
      trouble = error;
    } finally {
      waits.abort();
    }
    if (signal.aborted) return;
    for (const [id, { deliver }] of asked) {
      if (!pieces.began(id)) continue;
      deliver({ id, failure: { code: "too-long", message: LOST } }, []);
      asked.delete(id);
    }
    if (asked.size === 0) this.#failed = false;
    else this.#fail(trouble);
  }

  /** Questions were left unanswered: interrupted, or taken away. Attached again, they are asked again. */
  #fail(trouble: unknown): void {
    const again = this.#failed;
    this.#failed = true;
    if (trouble instanceof Refused) return this.#deny();
    if (again) return this.#lose(refused(trouble ?? new Error("VS Code ended the request without running it.")));
    this.#lose({ kind: "attaching", busy: false });
    void this.attach();
  }

  /** VS Code does not let us any more, or leaves a request lying. */
  #deny(): void {
    this.#denied = true;
    this.#lose(DENIED);
  }

  #idle(kernel: Kernel): boolean {
    return kernel.status === "idle" && this.#cells === 0;
  }

  #occupy(): void {
    const now = this.#cells > 0 || this.#asking !== null;
    if (now === this.occupied) return;
    this.occupied = now;
    this.tell.occupied(now);
  }

  // --- the kernel ---------------------------------------------------------------------------------------------------
  /**
   * With a cell the user may have chosen another kernel, or started the first; when it has ended, installed what was
   * missing.
   */
  async #look(ended: boolean): Promise<void> {
    const found = await kernelOf(this.notebook).catch(() => undefined);
    if (found === undefined || this.signal.aborted || !this.#open) return;
    const { kind } = this.state;
    if (isKernel(found)) {
      if (isRestarting(found.status) || isDead(found.status)) return; // of these we hear
      const same = found === this.#kernel;
      if (this.#denied && (same || this.#kernel === null)) return; // the user's to change
      if (same && (!ended || kind === "ready" || kind === "attaching")) return;
    } else if (kind !== "ready" && (kind !== "attaching" || this.#kernel || this.#going || !ended)) return;
    if (kind === "ready") this.#lose({ kind: "attaching", busy: false });
    await this.attach();
  }

  #hear(kernel: Kernel, signal: AbortSignal): void {
    this.#kernel = kernel;
    listen(
      kernel.onDidChangeStatus,
      (status) => {
        if (isRestarting(status)) this.#leave(kernel, "restarted");
        else if (isDead(status)) this.#leave(kernel, "another");
        else if (status === "idle") {
          this.#cells = 0; // also cells that were given up, or deleted while they ran
          this.#occupy();
        }
      },
      signal,
    );
  }

  /**
   * A kernel goes: one that is restarted, and is called dead on the way; or for good, or for another one. Which, is
   * told when it is known.
   */
  #leave(kernel: Kernel, what: keyof typeof BACK_MS): void {
    this.#cells = 0;
    this.past = { what };
    this.#lose({ kind: "attaching", busy: false });
    const signal = this.#attachment.renew();
    this.#going = signal;
    this.#await(kernel, signal);
    const given = setTimeout(() => void this.attach(), BACK_MS[what]);
    signal.addEventListener("abort", () => clearTimeout(given), { once: true });
  }

  /** Attaches once this kernel runs again. */
  #await(kernel: Kernel, signal: AbortSignal): void {
    listen(
      kernel.onDidChangeStatus,
      (status) => {
        if (status === "idle" || status === "busy") void this.attach();
      },
      signal,
    );
  }

  /** What was attached is gone. */
  #lose(now: LinkState): void {
    this.#kernel = this.#going = null;
    this.#asking = null;
    this.#waiting = [];
    this.#attachment.lose(now);
  }
}

/** Once more where nothing came: a user who interrupts a cell takes all with it that waits behind. */
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

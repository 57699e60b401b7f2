/** The way to one notebook's kernel: attaches without a trace, asks what pages ask, and says how things stand. */

import type { Kernel } from "@vscode/jupyter-extension";
import type { Answer, LinkState, Question } from "@residscope/widgets";
import { asWho, child, judge } from "@residscope/widgets/pageless";
import type { Uri } from "vscode";

import { version } from "../package.json";
import { asking, greeting, newToken } from "./expressions";
import { DENIED, DIED, isKernel, kernelOf } from "./jupyter";
import { listen } from "./listen";
import { whenIdleFor } from "./patience";
import { Pieces } from "./pieces";
import { Refused, run } from "./run";

/** Longer than a kernel that is free takes to answer. */
const MOMENT_MS = 600;
/** As long as this a kernel may be idle, and leave a request lying: then VS Code does not hand it over. */
const PATIENCE_MS = 5000;
const CLOSED = "This notebook is not open. Open it, and run its cells: the last picture stays.";
const LOST = "This answer was too long for the connection to the kernel: a part of it was lost on the way.";

export interface Listener {
  state(now: LinkState): void;
  lost(): void;
  renewed(): void;
  occupied(now: boolean): void;
}

type Deliver = (answer: Answer, buffers: ArrayBuffer[]) => void;

interface Waiting {
  question: Question;
  deliver: Deliver;
}

export class Connection {
  state: LinkState = { kind: "attaching", busy: false };
  occupied = false;
  #open = true;
  /** The kernel that is attached to, or on the way to be. */
  #kernel: Kernel | null = null;
  /** An attempt, and what came of it; ends when the kernel is lost, or another attempt begins. */
  #attached: AbortController;
  #waiting: Waiting[] = [];
  #asking: AbortSignal | null = null;
  /** Whether the last request came to nothing: once that may be an interrupt or a restart, twice it is not. */
  #failed = false;
  /** Whether only the user can do something about it. */
  #denied = false;
  #cells = 0;

  constructor(
    readonly notebook: Uri,
    readonly tell: Listener,
    readonly signal: AbortSignal,
  ) {
    this.#attached = child(signal);
  }

  /** Attaches to the kernel that is there now. */
  async attach(): Promise<void> {
    if (!this.#open) return;
    this.#attached.abort();
    const attempt = (this.#attached = child(this.signal));
    const { signal } = attempt;
    const waits = child(signal);
    this.#kernel = null;
    this.#denied = false;
    this.#set({ kind: "attaching", busy: false });
    // Nothing but a cell, or a question of VS Code's own, makes it wait: both are the user's to answer.
    const slow = setTimeout(() => this.#set({ kind: "attaching", busy: this.#cells > 0 }), MOMENT_MS);
    waits.signal.addEventListener("abort", () => clearTimeout(slow), { once: true });
    let outcome: LinkState;
    try {
      const found = await kernelOf(this.notebook);
      if (signal.aborted) return;
      if (isKernel(found)) {
        this.#hear(found, signal);
        // It goes on: whoever allows it later need not try again.
        whenIdleFor(PATIENCE_MS, () => this.#idle(found), waits.signal, () => this.#deny());
        outcome = await greet(found, signal);
      } else outcome = found;
    } catch (error) {
      outcome = refusal(error);
    }
    waits.abort();
    if (signal.aborted) return;
    this.#denied = "words" in outcome && outcome.words === DENIED;
    if (outcome.kind === "ready") {
      this.#waiting = []; // all of it is asked again
      this.tell.renewed(); // first: whoever hears that it is ready asks at once
    }
    this.#set(outcome);
  }

  /** Asks a question; it is answered, or the kernel is lost and the question is asked again when it is found. */
  ask(question: Question, deliver: Deliver): void {
    this.#waiting.push({ question, deliver });
    void this.#run();
  }

  /** A cell of the notebook has started, or ended. */
  cell(started: boolean): void {
    this.#cells = Math.max(0, this.#cells + (started ? 1 : -1));
    this.#occupy();
    if (!started) void this.#look();
  }

  /** The notebook was closed, or opened again. */
  close(open = false): void {
    if (open === this.#open) return;
    this.#open = open;
    this.#cells = 0;
    if (open) void this.attach();
    else this.#lose({ kind: "none", words: CLOSED });
  }

  // --- asking -------------------------------------------------------------------------------------------------------
  /** One request at a time holds all that wait: the user's next cell stands behind no more than that. */
  async #run(): Promise<void> {
    const { signal } = this.#attached;
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
    whenIdleFor(PATIENCE_MS, () => this.#idle(kernel), waits.signal, () => this.#deny());
    const pieces = new Pieces(asked.keys());
    const token = newToken();
    let trouble: unknown = null;
    try {
      for await (const output of run(kernel, asking(token, waiting.map(({ question }) => question)), token)) {
        if (signal.aborted) return; // lost meanwhile, which was told
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

  /** Questions were left unanswered: interrupted, or taken away. Attached anew, they are asked again. */
  #fail(trouble: unknown): void {
    const again = this.#failed;
    this.#failed = true;
    if (trouble instanceof Refused) return this.#deny();
    if (again) return this.#lose(refusal(trouble ?? new Error("VS Code ended the request without running it.")));
    this.#lose({ kind: "attaching", busy: false });
    void this.attach();
  }

  /** VS Code leaves requests lying. Where that was on the way, it may still come. */
  #deny(): void {
    const now: LinkState = { kind: "refused", words: DENIED };
    this.#denied = true;
    if (this.state.kind === "ready") this.#lose(now);
    else this.#set(now);
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
  /** After a cell: the user may have chosen another kernel, started the first, or installed what was missing. */
  async #look(): Promise<void> {
    const found = await kernelOf(this.notebook).catch(() => null);
    if (found === null || this.signal.aborted) return;
    const { kind } = this.state;
    const same = isKernel(found) && found === this.#kernel;
    if (same && (kind === "ready" || kind === "attaching" || this.#denied)) return;
    if (!isKernel(found) && kind !== "ready") return;
    if (kind === "ready") this.#lose({ kind: "attaching", busy: false });
    await this.attach();
  }

  #hear(kernel: Kernel, signal: AbortSignal): void {
    this.#kernel = kernel;
    listen(kernel.onDidChangeStatus, (status) => {
      if (status === "restarting" || status === "autorestarting") {
        this.#cells = 0;
        this.#lose({ kind: "attaching", busy: false });
        void this.attach();
      } else if (status === "dead" || status === "terminating") this.#lose({ kind: "none", words: DIED });
      else if (status === "idle") {
        this.#cells = 0; // also cells that were given up, or deleted while they ran
        this.#occupy();
      }
    }, signal);
  }

  /** What was attached is gone. */
  #lose(now: LinkState): void {
    this.#attached.abort();
    this.#kernel = null;
    this.#asking = null;
    this.#waiting = [];
    this.tell.lost();
    this.#occupy();
    this.#set(now);
  }

  #set(now: LinkState): void {
    if (JSON.stringify(now) === JSON.stringify(this.state)) return;
    this.state = now;
    this.tell.state(now);
  }
}

/** Once more where nothing came: a user who interrupts a cell takes all with it that waits behind. */
async function greet(kernel: Kernel, signal: AbortSignal): Promise<LinkState> {
  for (let attempt = 0; attempt < 2 && !signal.aborted; attempt += 1) {
    const token = newToken();
    for await (const { who } of run(kernel, greeting(token), token)) return judge(asWho(who), version, "reload the window");
  }
  return { kind: "refused", words: DENIED };
}

function refusal(error: unknown): LinkState {
  if (error instanceof Refused) return { kind: "refused", words: DENIED };
  return { kind: "refused", words: `Residscope could not ask this kernel: ${error instanceof Error ? error.message : String(error)}` };
}

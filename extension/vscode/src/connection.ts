/** The way to one notebook's kernel: attaches without a trace, asks what pages ask, and says how things stand. */

import type { Kernel } from "@vscode/jupyter-extension";
import type { Answer, LinkState, Question } from "@residscope/widgets";
import { attaching, judge, WHO, type Who } from "@residscope/widgets/who";
import type { Uri } from "vscode";

import attachCode from "../../../py_backend/residscope/attach.py";
import { version } from "../package.json";
import { DENIED, isKernel, kernelOf } from "./jupyter";
import { listen } from "./listen";
import { Pieces, Refused, run } from "./run";

/** Longer than a kernel that is free takes to answer. */
const MOMENT_MS = 600;
const CLOSED = "This notebook is not open. Open it, and run its cells: the last picture stays.";
const DIED = "The kernel has died. Restart it, and run the cells again.";

/** One expression, which is None and leaves no name: attaches, and shows who is there. */
const GREET = `(${attaching(attachCode)}, __import__("IPython.display", fromlist=["_"]).display({"application/vnd.residscope+json": ${WHO}}, raw=True))[1]`;

const asking = (questions: Question[]): string =>
  `__import__("residscope.executed", fromlist=["_"]).answer(${JSON.stringify(JSON.stringify(questions))})`;

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
  #kernel: Kernel | null = null;
  #heard = new AbortController();
  #attempt = new AbortController();
  #waiting: Waiting[] = [];
  #asking = false;
  /** Whether the last request came to nothing: once that may be an interrupt or a restart, twice it is not. */
  #failed = false;
  #cells = 0;

  constructor(
    readonly notebook: Uri,
    readonly tell: Listener,
    readonly signal: AbortSignal,
  ) {
    signal.addEventListener("abort", () => {
      this.#heard.abort();
      this.#attempt.abort();
    }, { once: true });
  }

  /** Attaches to the kernel that is there now, unless that has been done. */
  async attach(): Promise<void> {
    if (!this.#open) return;
    this.#attempt.abort();
    const { signal } = (this.#attempt = new AbortController());
    this.#set({ kind: "attaching", busy: false });
    // Nothing but a cell, or a question of VS Code's own, makes it wait: both are the user's to answer.
    const slow = setTimeout(() => this.#set({ kind: "attaching", busy: this.#cells > 0 }), MOMENT_MS);
    let outcome: LinkState;
    let kernel: Kernel | null = null;
    try {
      const found = await kernelOf(this.notebook);
      if (isKernel(found)) outcome = await greet((kernel = found));
      else outcome = found;
    } catch (error) {
      outcome = refusal(error);
    } finally {
      clearTimeout(slow);
    }
    if (signal.aborted || this.signal.aborted) return;
    if (kernel !== this.#kernel) this.#hear(kernel);
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
    if (this.#asking) return;
    this.#asking = true;
    while (this.#kernel && this.state.kind === "ready" && this.#waiting.length > 0) {
      const kernel = this.#kernel;
      const asked = new Map(this.#waiting.map((waiting) => [waiting.question.id, waiting]));
      this.#waiting = [];
      this.#occupy();
      let trouble: unknown = null;
      try {
        const pieces = new Pieces();
        for await (const output of run(kernel, asking([...asked.values()].map(({ question }) => question)))) {
          const whole = pieces.take(output);
          if (!whole) continue;
          asked.get(whole.answer.id)?.deliver(whole.answer, whole.buffers);
          asked.delete(whole.answer.id);
        }
      } catch (error) {
        trouble = error;
      }
      if (kernel !== this.#kernel) continue; // lost meanwhile, which was told
      if (asked.size === 0) this.#failed = false;
      else this.#fail(trouble);
    }
    this.#asking = false;
    this.#occupy();
  }

  /** Questions were left unanswered: interrupted, or taken away. Attached anew, they are asked again. */
  #fail(trouble: unknown): void {
    const again = this.#failed;
    this.#failed = true;
    if (again || trouble instanceof Refused) return this.#lose(refusal(trouble ?? new Error("VS Code ended the request without running it.")));
    this.#lose({ kind: "attaching", busy: false });
    void this.attach();
  }

  #occupy(): void {
    const now = this.#cells > 0 || this.#asking;
    if (now === this.occupied) return;
    this.occupied = now;
    this.tell.occupied(now);
  }

  // --- the kernel ---------------------------------------------------------------------------------------------------
  /** The user may have chosen another kernel, or started the first. */
  async #look(): Promise<void> {
    if (this.state.kind === "attaching") return;
    const found = await kernelOf(this.notebook).catch(() => null);
    if (found === null || (isKernel(found) && found === this.#kernel && this.state.kind !== "none")) return;
    if (!isKernel(found) && this.state.kind !== "ready") return;
    if (this.#kernel) this.#lose({ kind: "attaching", busy: false });
    await this.attach();
  }

  #hear(kernel: Kernel | null): void {
    this.#heard.abort();
    this.#heard = new AbortController();
    this.#kernel = kernel;
    if (!kernel) return;
    listen(kernel.onDidChangeStatus, (status) => {
      if (status === "restarting" || status === "autorestarting") {
        this.#cells = 0;
        this.#lose({ kind: "attaching", busy: false });
        void this.attach();
      } else if (status === "dead" || status === "terminating") this.#lose({ kind: "none", words: DIED });
    }, this.#heard.signal);
  }

  /** What was attached is gone. */
  #lose(now: LinkState): void {
    this.#attempt.abort();
    this.#hear(null);
    this.#waiting = [];
    this.tell.lost();
    this.#set(now);
  }

  #set(now: LinkState): void {
    if (JSON.stringify(now) === JSON.stringify(this.state)) return;
    this.state = now;
    this.tell.state(now);
  }
}

async function greet(kernel: Kernel): Promise<LinkState> {
  for await (const who of run(kernel, GREET)) return judge(who as Who, version, "reload the window");
  return { kind: "refused", words: DENIED }; // it was not run: nothing else comes without a word
}

function refusal(error: unknown): LinkState {
  if (error instanceof Refused) return { kind: "refused", words: DENIED };
  return { kind: "refused", words: `Residscope could not ask this kernel: ${error instanceof Error ? error.message : String(error)}` };
}

// The kernel of one notebook, reached through `bridge.py`, with a queue: cells run before the requests of extensions.
import { spawn, type ChildProcessWithoutNullStreams } from "node:child_process";
import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";
import type { KernelStatus, Output } from "@vscode/jupyter-extension";
import { EventEmitter } from "vscode";

export interface Message {
  parent?: string;
  type: string;
  content: Record<string, unknown>;
}

interface Work {
  cell: boolean;
  run: () => Promise<void>;
  drop: () => void;
}

/** The times from the start of a restart until the kernel is reported as dead, and (at least) as running again. */
const DEAD_MS = 100;
const AGAIN_MS = 1000;
const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export class RunningKernel {
  status: KernelStatus = "starting";
  /** Whether a cell has ended since the kernel was started. Before that, no extension gets the kernel. */
  used = false;
  readonly statusChanged = new EventEmitter<KernelStatus>();
  readonly #bridge: ChildProcessWithoutNullStreams;
  readonly #heard = new Map<string, (message: Message | null) => void>();
  readonly #ready: Promise<void>;
  #restarted: (() => void) | null = null;
  #queue: Work[] = [];
  #working = false;

  constructor(python: string, bridge: string, name: string) {
    this.#bridge = spawn(python, [bridge, name]);
    this.#bridge.stderr.on("data", (data: Buffer) => console.error(String(data)));
    let ready: () => void;
    this.#ready = new Promise((resolve) => (ready = resolve));
    createInterface(this.#bridge.stdout).on("line", (line) => {
      const message = JSON.parse(line) as Message;
      if (message.type === "ready") {
        this.#become("idle");
        ready();
      } else if (message.type === "restarted") this.#restarted?.();
      // A kernel that was killed or is being restarted may still send its status.
      else if (message.type === "status" && !this.isGone && !this.#restarted)
        this.#become(message.content["execution_state"] as KernelStatus);
      if (message.parent) this.#heard.get(message.parent)?.(message);
    });
  }

  get isGone(): boolean {
    return ["dead", "terminating", "unknown"].includes(this.status);
  }

  /** Runs code, and calls `hear` with each of its messages. Returns the reply; null if the kernel was lost. */
  async execute(
    code: string,
    options: { silent: boolean; store_history: boolean },
    hear: (message: Message) => void,
  ): Promise<Message | null> {
    await this.#ready;
    const id = randomUUID();
    let reply: Message | null = null;
    return new Promise((resolve) => {
      let idle = false;
      const end = (): void => {
        this.#heard.delete(id);
        resolve(reply);
      };
      this.#heard.set(id, (message) => {
        if (message === null) return end(); // the kernel was restarted or ended
        hear(message);
        if (message.type === "execute_reply") reply = message;
        if (message.type === "status" && message.content["execution_state"] === "idle") idle = true;
        if (reply && idle) end();
      });
      const content = { code, ...options, user_expressions: {}, allow_stdin: false, stop_on_error: false };
      this.#say({ do: "execute", id, content });
    });
  }

  /** Puts work into the queue. Returns true after the work was run, or false if it was dropped before its turn. */
  enqueue(cell: boolean, run: () => Promise<void>): Promise<boolean> {
    return new Promise((resolve) => {
      this.#queue.push({ cell, run: () => run().finally(() => resolve(true)), drop: () => resolve(false) });
      void this.#work();
    });
  }

  async restart(): Promise<void> {
    const restarted = new Promise<void>((resolve) => (this.#restarted = resolve));
    this.#become("restarting");
    this.#dropAll();
    this.#say({ do: "restart" });
    await wait(DEAD_MS);
    this.#become("dead");
    await Promise.all([restarted, wait(AGAIN_MS - DEAD_MS)]);
    this.#restarted = null;
    this.used = false;
    this.#become("busy");
    this.#become("idle");
  }

  /** Drops all waiting work, and interrupts the running cell or request. */
  interrupt(): void {
    for (const work of this.#queue.splice(0)) work.drop();
    this.#say({ do: "interrupt" });
  }

  kill(): void {
    this.#say({ do: "kill" });
    this.#become("dead");
    this.#dropAll();
  }

  /** Ends the kernel, because its notebook or window was closed, or another kernel was chosen. */
  dispose(): void {
    this.#become("terminating");
    this.#dropAll();
    this.#bridge.stdin.end();
    this.#become("unknown");
  }

  #dropAll(): void {
    for (const work of this.#queue.splice(0)) work.drop();
    for (const hear of [...this.#heard.values()]) hear(null);
  }

  async #work(): Promise<void> {
    if (this.#working) return;
    this.#working = true;
    while (this.#queue.length > 0) {
      const at = Math.max(0, this.#queue.findIndex(({ cell }) => cell));
      const [work] = this.#queue.splice(at, 1);
      await work?.run();
    }
    this.#working = false;
  }

  #become(status: KernelStatus): void {
    if (status === this.status) return;
    this.status = status;
    this.statusChanged.fire(status);
  }

  #say(request: unknown): void {
    this.#bridge.stdin.write(`${JSON.stringify(request)}\n`);
  }
}

interface KernelError {
  ename: string;
  evalue: string;
  traceback: string[];
}

/** The output that a message adds to a cell; null if it adds none. */
export function outputOf({ type, content }: Message): Output | null {
  const output = (data: Record<string, unknown>): Output => ({
    items: Object.entries(data).map(([mime, value]) => ({ mime, data: bytes(value) })),
  });
  if (type === "stream")
    return output({ [`application/vnd.code.notebook.${String(content["name"])}`]: content["text"] });
  if (type === "error") {
    const { ename: name, evalue: message, traceback } = content as KernelError & Message["content"];
    return output({ "application/vnd.code.notebook.error": { name, message, stack: traceback.join("\n") } });
  }
  if (type !== "display_data" && type !== "execute_result") return null;
  return output(content["data"] as Record<string, unknown>);
}

function bytes(value: unknown): Uint8Array {
  return new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value));
}

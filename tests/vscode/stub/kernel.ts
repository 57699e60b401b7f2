// One notebook's kernel behind its bridge, and the queue in front of it: cells first, then what extensions ask.
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

export class RunningKernel {
  status: KernelStatus = "starting";
  /** Whether the user has run a cell in it: no extension gets a kernel before. */
  used = false;
  readonly statusChanged = new EventEmitter<KernelStatus>();
  readonly #bridge: ChildProcessWithoutNullStreams;
  readonly #heard = new Map<string, (message: Message | null) => void>();
  readonly #ready: Promise<void>;
  #restarted: () => void = () => undefined;
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
      } else if (message.type === "restarted") this.#restarted();
      // A killed kernel may have something left to say, and is dead all the same.
      else if (message.type === "status" && this.status !== "dead") this.#become(message.content["execution_state"] as KernelStatus);
      if (message.parent) this.#heard.get(message.parent)?.(message);
    });
  }

  /** Runs code; its messages until it has ended. */
  async execute(code: string, options: { silent: boolean; store_history: boolean }, hear: (message: Message) => void): Promise<Message | null> {
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
        if (message === null) return end(); // it went with its kernel
        hear(message);
        if (message.type === "execute_reply") reply = message;
        if (message.type === "status" && message.content["execution_state"] === "idle") idle = true;
        if (reply && idle) end();
      });
      this.#say({ do: "execute", id, content: { code, ...options, user_expressions: {}, allow_stdin: false, stop_on_error: false } });
    });
  }

  enqueue(cell: boolean, run: () => Promise<void>): Promise<void> {
    return new Promise((resolve) => {
      this.#queue.push({ cell, run: () => run().finally(resolve), drop: resolve });
      void this.#work();
    });
  }

  async restart(): Promise<void> {
    this.used = false;
    this.#become("restarting");
    this.#dropAll();
    await new Promise<void>((resolve) => {
      this.#restarted = resolve;
      this.#say({ do: "restart" });
    });
    this.#become("idle");
  }

  interrupt(): void {
    for (const work of this.#queue.splice(0)) work.drop(); // as the real one does: all that waits is given up
    this.#say({ do: "interrupt" });
  }

  kill(): void {
    this.#say({ do: "kill" });
    this.#become("dead");
    this.#dropAll();
  }

  dispose(): void {
    this.#dropAll();
    this.#bridge.stdin.end();
    this.#become("dead");
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

/** A message as an output of a cell; null where it is none. */
export function outputOf({ type, content }: Message): Output | null {
  const bytes = (value: unknown): Uint8Array => new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value));
  if (type === "stream") return { items: [{ mime: `application/vnd.code.notebook.${String(content["name"])}`, data: bytes(content["text"]) }] };
  if (type === "error") {
    const { ename: name, evalue: message, traceback } = content as { ename: string; evalue: string; traceback: string[] };
    return { items: [{ mime: "application/vnd.code.notebook.error", data: bytes({ name, message, stack: traceback.join("\n") }) }] };
  }
  if (type !== "display_data" && type !== "execute_result") return null;
  return { items: Object.entries(content["data"] as Record<string, unknown>).map(([mime, value]) => ({ mime, data: bytes(value) })) };
}

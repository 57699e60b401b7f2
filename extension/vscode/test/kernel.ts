// A kernel as the Jupyter extension shows it, whose answers a test gives.
import type { Jupyter, Kernel, KernelStatus, Output } from "@vscode/jupyter-extension";
import type { Answer, Question } from "@residscope/widgets";
import { WIRE } from "@residscope/widgets/pageless";
import { version } from "../package.json";
import { MIME } from "../src/run";
import { EventEmitter, installed } from "./fake-vscode";

export const US = { python: "/usr/bin/python", version, wire: WIRE };

export const output = (value: unknown, mime = MIME): Output => ({ items: [{ mime, data: new TextEncoder().encode(JSON.stringify(value)) }] });

/** An answer, in so many pieces. */
export function pieces(answer: Answer, buffers: Uint8Array[] = [], count = 1): Output[] {
  const whole = JSON.stringify({ answer, buffers: buffers.map((bytes) => btoa(String.fromCharCode(...bytes))) });
  const size = Math.ceil(whole.length / count);
  return Array.from({ length: count }, (_, piece) => output({ id: answer.id, piece, pieces: count, text: whole.slice(piece * size, (piece + 1) * size) }));
}

export class FakeKernel implements Kernel {
  readonly language: string = "python";
  status: KernelStatus = "idle";
  readonly statusChanged = new EventEmitter<KernelStatus>();
  readonly onDidChangeStatus = this.statusChanged.event;
  readonly asked: Question[][] = [];
  greeted = 0;
  cancelled = false;
  /** What the next requests give, instead of answers; an error is thrown. */
  script: (Output[] | Error)[] = [];
  who: unknown = US;
  /** While it is set requests wait for it, as behind a running cell. */
  gate: Promise<void> = Promise.resolve();
  answers = (question: Question): Output[] => pieces({ id: question.id, reply: { kind: "working", done: 0, total: 0 } });

  async *executeCode(code: string, token: { isCancellationRequested: boolean }): AsyncGenerator<Output> {
    this.cancelled ||= token.isCancellationRequested;
    await this.gate;
    const next = this.script.shift();
    if (next instanceof Error) throw next;
    if (next) return yield* next;
    const questions = /answer\((".*")\)$/s.exec(code)?.[1];
    if (questions === undefined) {
      this.greeted += 1;
      return yield output(this.who);
    }
    const parsed = JSON.parse(JSON.parse(questions) as string) as Question[];
    this.asked.push(parsed);
    for (const question of parsed) yield* this.answers(question);
  }
}

/** Installs a Jupyter extension that has this kernel for every notebook. */
export function jupyterWith(kernel: () => Kernel | undefined): void {
  const api: Pick<Jupyter, "kernels"> = { kernels: { getKernel: async () => kernel() } };
  installed.set("ms-toolsai.jupyter", { isActive: true, exports: api, activate: async () => api });
}

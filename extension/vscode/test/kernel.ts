// A kernel as the Jupyter extension shows it, whose answers a test gives.

import type { Answer, Question } from "@residscope/widgets";
import { WIRE } from "@residscope/widgets/node";
import type { Jupyter, Kernel, KernelStatus, Output } from "@vscode/jupyter-extension";
import { version } from "../package.json";
import { MIME } from "../src/expressions";
import { EventEmitter, installed } from "./fake-vscode";

export const US = { python: "/usr/bin/python", version, wire: WIRE };

export const raw = (text: string, mime = MIME): Output => ({ items: [{ mime, data: new TextEncoder().encode(text) }] });
export const output = (value: unknown, mime = MIME): Output => raw(JSON.stringify(value), mime);

/** An answer, in so many pieces; they get the request's token as they are shown. */
export function pieces(answer: Answer, buffers: Uint8Array[] = [], count = 1): Output[] {
  const whole = JSON.stringify({ answer, buffers: buffers.map((bytes) => btoa(String.fromCharCode(...bytes))) });
  const size = Math.ceil(whole.length / count);
  return Array.from({ length: count }, (_, piece) =>
    output({ id: answer.id, piece, pieces: count, text: whole.slice(piece * size, (piece + 1) * size) }),
  );
}

export class FakeKernel implements Kernel {
  readonly language: string = "python";
  status: KernelStatus = "idle";
  readonly statusChanged = new EventEmitter<KernelStatus>();
  readonly onDidChangeStatus = this.statusChanged.event;

  /** Goes through these one after the other; each is told once it is so. */
  become(...statuses: KernelStatus[]): void {
    for (const status of statuses) {
      this.status = status;
      this.statusChanged.fire(status);
    }
  }
  readonly asked: Question[][] = [];
  greeted = 0;
  cancelled = false;
  /** What the next requests give, instead of answers; an error is thrown. */
  script: (Output[] | Error)[] = [];
  who: unknown = US;
  /** While it is set requests wait for it, as behind a running cell. */
  gate: Promise<void> = Promise.resolve();
  /** While it is set what follows a piece of an answer is on its way. */
  travels: Promise<void> = Promise.resolve();
  answers = (question: Question): Output[] =>
    pieces({ id: question.id, reply: { kind: "working", done: 0, total: 0 } });

  /** What other code in the kernel shows meanwhile. */
  meanwhile: Output[] = [];
  readonly codes: string[] = [];

  async *executeCode(code: string, token: { isCancellationRequested: boolean }): AsyncGenerator<Output> {
    this.cancelled ||= token.isCancellationRequested;
    this.codes.push(code);
    await this.gate;
    const next = this.script.shift();
    if (next instanceof Error) throw next;
    if (next) return yield* next;
    yield* this.meanwhile;
    const [, questions, ours] = /, lambda \*_: None\)\((".*"), "(\w{32})"\)$/s.exec(code) ?? [];
    if (questions === undefined) {
      this.greeted += 1;
      return yield output({ token: /"token": "(\w{32})"/.exec(code)?.[1], who: this.who });
    }
    const parsed = JSON.parse(JSON.parse(asJson(questions)) as string) as Question[];
    this.asked.push(parsed);
    for (const question of parsed) {
      for (const shown of this.answers(question)) {
        yield stamped(shown, ours);
        await this.travels;
      }
    }
  }
}

/** A literal of Python's as one of JSON's, which has no `\U`. */
const asJson = (literal: string): string =>
  literal.replace(/\\(\\|U(\w{8}))/g, (all, _, point?: string) =>
    point ? String.fromCodePoint(Number.parseInt(point, 16)) : all,
  );

function stamped({ items: [item] }: Output, token: string | undefined): Output {
  const { mime, data } = item!;
  const value = JSON.parse(new TextDecoder().decode(data)) as unknown;
  return output(mime === MIME && typeof value === "object" ? { token, ...value } : value, mime);
}

/** Installs a Jupyter extension that has this kernel for every notebook. */
export function jupyterWith(kernel: () => Kernel | undefined): void {
  const api: Pick<Jupyter, "kernels"> = { kernels: { getKernel: async () => kernel() } };
  installed.set("ms-toolsai.jupyter", { isActive: true, exports: api, activate: async () => api });
}

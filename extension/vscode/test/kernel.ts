// A fake kernel with the API of the Jupyter extension. A test sets its answers.

import type { Answer, Question } from "@residscope/widgets";
import { MIME, WIRE } from "@residscope/widgets/node";
import type { Jupyter, Kernel, KernelStatus, Output } from "@vscode/jupyter-extension";
import { version } from "../package.json";
import { EventEmitter, installed } from "./fake-vscode";

/** The description of a kernel with this version of Residscope. */
export const OURS = { python: "/usr/bin/python", version, wire: WIRE };

export const raw = (text: string, mime = MIME): Output => ({ items: [{ mime, data: new TextEncoder().encode(text) }] });
export const output = (value: unknown, mime = MIME): Output => raw(JSON.stringify(value), mime);

/** The outputs of an answer in `count` pieces. They get the request's token later, in `executeCode`. */
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

  /** Changes the status to each of these, and fires an event for each. */
  become(...statuses: KernelStatus[]): void {
    for (const status of statuses) {
      this.status = status;
      this.statusChanged.fire(status);
    }
  }
  /** The batches of requests that it has run. */
  readonly asked: Question[][] = [];
  /** How often an expression that attaches has run. */
  attached = 0;
  cancelled = false;
  /** What the next expressions give instead of answers: outputs, or an error that is thrown. */
  script: (Output[] | Error)[] = [];
  info: unknown = OURS;
  /** Every expression waits for this first, as for a running cell. */
  gate: Promise<void> = Promise.resolve();
  /** After each piece of an answer, the next one waits for this. */
  nextPiece: Promise<void> = Promise.resolve();
  answers = (question: Question): Output[] =>
    pieces({ id: question.id, reply: { kind: "working", done: 0, total: 0 } });

  /** Outputs of other code, which come before the answers. */
  otherOutputs: Output[] = [];
  readonly codes: string[] = [];

  async *executeCode(code: string, token: { isCancellationRequested: boolean }): AsyncGenerator<Output> {
    this.cancelled ||= token.isCancellationRequested;
    this.codes.push(code);
    await this.gate;
    const next = this.script.shift();
    if (next instanceof Error) throw next;
    if (next) return yield* next;
    yield* this.otherOutputs;
    const [, questions, ourToken] = /, lambda \*_: None\)\((".*"), "(\w{32})"\)$/s.exec(code) ?? [];
    if (questions === undefined) {
      this.attached += 1;
      return yield output({ token: /"token": "(\w{32})"/.exec(code)?.[1], info: this.info });
    }
    const parsed = JSON.parse(JSON.parse(asJson(questions)) as string) as Question[];
    this.asked.push(parsed);
    for (const question of parsed) {
      for (const shown of this.answers(question)) {
        yield withToken(shown, ourToken);
        await this.nextPiece;
      }
    }
  }
}

/** A Python string literal as a JSON string. JSON has no `\U`. */
const asJson = (literal: string): string =>
  literal.replace(/\\(\\|U(\w{8}))/g, (all, _, point?: string) =>
    point ? String.fromCodePoint(Number.parseInt(point, 16)) : all,
  );

function withToken({ items: [item] }: Output, token: string | undefined): Output {
  const { mime, data } = item!;
  const value = JSON.parse(new TextDecoder().decode(data)) as unknown;
  return output(mime === MIME && typeof value === "object" ? { token, ...value } : value, mime);
}

/** Installs a fake Jupyter extension that gives this kernel to every notebook. */
export function jupyterWith(kernel: () => Kernel | undefined): void {
  const api: Pick<Jupyter, "kernels"> = { kernels: { getKernel: async () => kernel() } };
  installed.set("ms-toolsai.jupyter", { isActive: true, exports: api, activate: async () => api });
}

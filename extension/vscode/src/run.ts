/** Has a kernel run an expression, and puts the answers together from its outputs. Knows nothing of notebooks. */

import type { Kernel, Output } from "@vscode/jupyter-extension";
import type { Answer } from "@residscope/widgets";
import type { CancellationToken } from "vscode";

/** What only we write and read; as in `residscope.executed`. */
export const MIME = "application/vnd.residscope+json";
/** The name of the error that says that the user has taken our access away; documented by the Jupyter extension. */
const REVOKED = "vscode.jupyter.apiAccessRevoked";

/** VS Code would not run it, for a reason that only the user can do something about. */
export class Refused extends Error {}

/** Never cancelled: once a request has started, that would interrupt the user's kernel. */
const NEVER: CancellationToken = { isCancellationRequested: false, onCancellationRequested: () => ({ dispose: () => undefined }) };

/** What our MIME type carries, output by output. Others (a warning on stderr) are nobody's. */
export async function* run(kernel: Kernel, expression: string): AsyncGenerator<unknown> {
  try {
    for await (const output of kernel.executeCode(expression, NEVER)) yield* carried(output);
  } catch (error) {
    if (error instanceof Error && error.name === REVOKED) throw new Refused("Access to this kernel was taken away.");
    throw error;
  }
}

function* carried({ items }: Output): Generator<unknown> {
  for (const { mime, data } of items) {
    if (mime === MIME) yield JSON.parse(new TextDecoder().decode(data));
    if (mime === "application/vnd.code.notebook.error") throw new Error(errorIn(data));
  }
}

function errorIn(data: Uint8Array): string {
  const { name, message } = JSON.parse(new TextDecoder().decode(data)) as { name?: string; message?: string };
  return [name, message].filter(Boolean).join(": ");
}

interface Piece {
  id: string;
  piece: number;
  pieces: number;
  text: string;
}

export interface Answered {
  answer: Answer;
  buffers: ArrayBuffer[];
}

/** Answers whose pieces may arrive in several outputs, in any order. */
export class Pieces {
  readonly #open = new Map<string, (string | undefined)[]>();

  /** Whether some of it came, and not all. */
  began(id: string): boolean {
    return this.#open.has(id);
  }

  /** The answer that this piece completes, if it does. */
  take(output: unknown): Answered | null {
    if (!isPiece(output)) return null;
    const { id, piece, pieces, text } = output;
    const known = this.#open.get(id) ?? new Array<string | undefined>(pieces).fill(undefined);
    known[piece] = text;
    this.#open.set(id, known);
    if (known.includes(undefined)) return null;
    this.#open.delete(id);
    const { answer, buffers } = JSON.parse(known.join("")) as { answer: Answer; buffers: string[] };
    return { answer, buffers: buffers.map(decoded) };
  }
}

function isPiece(output: unknown): output is Piece {
  const { id, piece, pieces, text } = (output ?? {}) as Partial<Piece>;
  return typeof id === "string" && typeof piece === "number" && typeof pieces === "number" && typeof text === "string" && piece < pieces;
}

function decoded(base64: string): ArrayBuffer {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)).buffer;
}

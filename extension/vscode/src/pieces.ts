/** Assembles answers from the outputs of one request, within limits. */

import type { Answer } from "@residscope/widgets";

import type { Carried } from "./run";

/** Limits; the same as in `residscope.hosts.execute`, which sends no longer answers. */
export const LIMITS = {
  /** Characters of one answer. */
  length: 128_000_000,
  /** Pieces of one answer. */
  pieces: 1000,
  /** Characters of all incomplete answers. */
  held: 256_000_000,
  /** Incomplete answers. (The kernel sends one answer after the other.) */
  open: 64,
};

const LONG =
  "This answer is too long for the connection to the kernel. Choose fewer heads or fewer positions, or use Residscope in a cell.";
const UNREADABLE = "The kernel’s answer could not be read. Restart the kernel, and reload the window.";

export interface Answered {
  answer: Answer;
  buffers: ArrayBuffer[];
}

interface Open {
  texts: (string | undefined)[];
  missing: number;
  length: number;
}

export class Pieces {
  readonly #open = new Map<string, Open>();
  /** The ids of the requests that have no answer yet. */
  readonly #asked: Set<string>;
  #held = 0;

  constructor(
    asked: Iterable<string>,
    readonly limits: typeof LIMITS = LIMITS,
  ) {
    this.#asked = new Set(asked);
  }

  /** Whether an answer has begun but is not complete. */
  began(id: string): boolean {
    return this.#open.has(id);
  }

  /** Adds a piece, and returns the answer if it is complete. An answer that exceeds the limits becomes a failure at once. */
  take({ id, piece, pieces, text }: Carried): Answered | null {
    if (typeof id !== "string" || !this.#asked.has(id) || typeof text !== "string") return null;
    if (!isWhole(pieces) || !isWhole(piece) || piece >= pieces) return null;
    const known = this.#open.get(id);
    if (known ? known.texts.length !== pieces || known.texts[piece] !== undefined : false) return null;
    const length = (known?.length ?? 0) + text.length;
    const { limits } = this;
    if (
      pieces > limits.pieces ||
      length > limits.length ||
      this.#held + text.length > limits.held ||
      (!known && this.#open.size >= limits.open)
    ) {
      return this.#end(id, failed(id, "too-long", LONG));
    }
    const open = known ?? { texts: new Array<string | undefined>(pieces).fill(undefined), missing: pieces, length: 0 };
    this.#open.set(id, open);
    open.texts[piece] = text;
    open.missing -= 1;
    open.length = length;
    this.#held += text.length;
    return open.missing > 0 ? null : this.#end(id, read(id, open.texts.join("")));
  }

  #end(id: string, answered: Answered): Answered {
    this.#held -= this.#open.get(id)?.length ?? 0;
    this.#open.delete(id);
    this.#asked.delete(id);
    return answered;
  }
}

const isWhole = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

const failed = (id: string, code: string, message: string): Answered => ({
  answer: { id, failure: { code, message } },
  buffers: [],
});

function read(id: string, whole: string): Answered {
  try {
    const { answer, buffers } = JSON.parse(whole) as { answer: unknown; buffers: unknown };
    if (isAnswer(answer) && answer.id === id && Array.isArray(buffers))
      return { answer, buffers: buffers.map(decoded) };
  } catch {
    // Not JSON, or not base64.
  }
  return failed(id, "protocol", UNREADABLE);
}

/** Whether a value has the form of an answer; the page checks the contents of the reply. */
function isAnswer(value: unknown): value is Answer {
  const { id, reply, failure } = (value ?? {}) as Record<string, unknown>;
  if (typeof id !== "string") return false;
  if (failure === undefined || failure === null)
    return typeof (reply as { kind?: unknown } | null | undefined)?.kind === "string";
  const { code, message } = failure as Record<string, unknown>;
  return typeof code === "string" && typeof message === "string";
}

function decoded(base64: unknown): ArrayBuffer {
  if (typeof base64 !== "string") throw new TypeError("A buffer must be a string.");
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)).buffer;
}

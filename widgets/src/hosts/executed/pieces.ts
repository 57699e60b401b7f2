// Puts answers together from pieces, which are the outputs of a request. Limits protect against too much data.
import type { Answer } from "../../wire/protocol.gen";

/** The data of one of our outputs. It is not checked yet. */
export type OutputData = Record<string, unknown>;

/** The limits. `residscope.hosts.execute` keeps within them: it has the same maximum length of an answer. */
export const LIMITS = {
  /** Characters of one answer. */
  length: 128_000_000,
  /** Pieces of one answer. */
  pieces: 1000,
  /** Characters of all incomplete answers together. */
  held: 256_000_000,
  /** Incomplete answers at the same time. The kernel sends one answer after the other. */
  open: 64,
};

const LONG =
  "This answer is too long for the connection to the kernel. " +
  "Choose fewer heads or fewer positions, or use Residscope in a cell.";
const UNREADABLE = "The kernel’s answer could not be read. Restart the kernel, and reload the window.";

export interface Answered {
  answer: Answer;
  buffers: ArrayBuffer[];
}

/** An answer of which some pieces are missing. */
interface Incomplete {
  texts: (string | undefined)[];
  missing: number;
  length: number;
}

export class Pieces {
  readonly #incomplete = new Map<string, Incomplete>();
  /** The ids of the requests that have no answer yet. */
  readonly #asked: Set<string>;
  /** The characters of all incomplete answers. */
  #length = 0;

  constructor(
    asked: Iterable<string>,
    readonly limits: typeof LIMITS = LIMITS,
  ) {
    this.#asked = new Set(asked);
  }

  /** Whether an answer has begun but is not complete. */
  hasBegun(id: string): boolean {
    return this.#incomplete.has(id);
  }

  /**
   * Adds a piece, and returns the answer if it is complete; else null. If the answer exceeds a limit, a failure is
   * returned in its place at once. A piece that is not valid, or that belongs to no request, is ignored.
   */
  take({ id, piece, pieces, text }: OutputData): Answered | null {
    if (typeof id !== "string" || !this.#asked.has(id) || typeof text !== "string") return null;
    if (!isCount(pieces) || !isCount(piece) || piece >= pieces) return null;
    const incomplete = this.#incomplete.get(id);
    if (incomplete ? incomplete.texts.length !== pieces || incomplete.texts[piece] !== undefined : false) return null;
    const length = (incomplete?.length ?? 0) + text.length;
    const { limits } = this;
    if (
      pieces > limits.pieces ||
      length > limits.length ||
      this.#length + text.length > limits.held ||
      (!incomplete && this.#incomplete.size >= limits.open)
    ) {
      return this.#end(id, failed(id, "too-long", LONG));
    }
    const answer = incomplete ?? {
      texts: new Array<string | undefined>(pieces).fill(undefined),
      missing: pieces,
      length: 0,
    };
    this.#incomplete.set(id, answer);
    answer.texts[piece] = text;
    answer.missing -= 1;
    answer.length = length;
    this.#length += text.length;
    return answer.missing > 0 ? null : this.#end(id, parsed(id, answer.texts.join("")));
  }

  #end(id: string, answered: Answered): Answered {
    this.#length -= this.#incomplete.get(id)?.length ?? 0;
    this.#incomplete.delete(id);
    this.#asked.delete(id);
    return answered;
  }
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

const failed = (id: string, code: string, message: string): Answered => ({
  answer: { id, failure: { code, message } },
  buffers: [],
});

function parsed(id: string, whole: string): Answered {
  try {
    const { answer, buffers } = JSON.parse(whole) as { answer: unknown; buffers: unknown };
    if (isAnswer(answer) && answer.id === id && Array.isArray(buffers))
      return { answer, buffers: buffers.map(decoded) };
  } catch {
    // Not JSON, or not base64.
  }
  return failed(id, "protocol", UNREADABLE);
}

/** Whether a value has the fields of an answer. The page checks the contents of the reply. */
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

// Requests over a transport. The client handles ids, buffers and the rule "the newest request wins". It does not depend
// on the host, or on what is drawn.
import { computed, type ReadonlySignal, signal as state } from "@preact/signals-core";
import { randomId } from "../base/ids";
import { legible } from "../base/legible";
import { child, later, until } from "../base/lifetime";
import { isReplyTo } from "./is-reply-to";
import type { Answer, CacheRef, Failure, Question, Shown } from "./protocol.gen";

export type Ask = Question["ask"];
export type Kind = Ask["kind"];
type AnyReply = NonNullable<Answer["reply"]>;
export type ReplyTo<K extends Kind> = Extract<AnyReply, { kind: K }>;
export interface Result<K extends Kind> {
  reply: ReplyTo<K>;
  buffers: DataView[];
}

/**
 * Carries messages: anywidget, a Jupyter comm, or VS Code. `onLost` reports that the kernel side is gone. `onRenewed`
 * reports that it answers, for the first time or again.
 */
export interface Transport {
  send(message: Question, buffers?: ArrayBuffer[]): void;
  onMessage(listener: (message: unknown, buffers: DataView[]) => void, signal: AbortSignal): void;
  onLost?(listener: () => void, signal: AbortSignal): void;
  onRenewed?(listener: () => void, signal: AbortSignal): void;
  /** Whether the kernel runs the user's code, where that can be determined. */
  readonly occupied?: ReadonlySignal<boolean>;
  /** Whether the user sees every request to the kernel. If so, few are sent in advance, and several in one message. */
  readonly thrifty?: boolean;
  /**
   * Makes the kernel take a turn: a moment between two cells, in which it runs the user's model. Settles after the
   * turn, also if the turn was cancelled together with the cells before it. Undefined if the host cannot do this. The
   * model then runs only if the kernel side gives turns while it answers (`answering` in `hosts/turns.py`).
   */
  readonly takeTurn?: ((token: string) => Promise<void>) | undefined;
  /** Whether one of the user's cells is running, as far as the host knows; undefined if it does not know. */
  isCellRunning?(): boolean | undefined;
  /** Whether a kernel that does not answer is probably gone; only for hosts that may not report a lost kernel. */
  isSilenceLoss?(): boolean;
}

/** The kernel refused a request: a stable code, and a sentence that says what to do. */
export class RequestFailed extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
    this.name = "RequestFailed";
  }
}

/** The progress of a long job; `total` is 0 if it is not known. */
export interface Progress {
  done: number;
  total: number;
}
interface Waiting {
  question: Question;
  /** Whether the kernel has reported that it works on this request. */
  long: boolean;
  settle: (outcome: Result<Kind> | RequestFailed) => void;
}
/** The requests of one view: the one that is in flight, and the one to send after it. */
interface Lane {
  id: string;
  busySince: number;
  next: { start: () => void; drop: () => void } | null;
}

/** If a lane waits longer than this, a message was probably lost, and the next request is sent. */
const PATIENCE_MS = 30_000;
/**
 * A request that has no answer after this time is sent once more. After the same time again, the kernel counts as
 * silent.
 */
export const SILENCE_MS = 10_000;

export class Client {
  readonly #prefix = randomId();
  readonly #waiting = new Map<string, Waiting>();
  readonly #lanes = new Map<string, Lane>();
  readonly #inFlight = state(0);
  readonly #lost = state(false);
  readonly #heard = state(0);
  readonly #progress = state<Progress | null>(null);
  readonly #unanswered = state(false);
  #silence: AbortController | null = null;
  #count = 0;
  /** How padding is treated. Requests name it if it is not "found", the kernel's default. */
  padding: () => NonNullable<Shown["padding"]> = () => "found";
  readonly #spare = state(false);
  /** Whether a request in advance would delay nothing: no request is in flight, and the kernel is free. */
  readonly #idle = computed(
    () => !this.#spare.value && this.#inFlight.value === 0 && !this.#lost.value && !this.transport.occupied?.value,
  );

  constructor(
    readonly transport: Transport,
    readonly signal: AbortSignal,
    /** The cache that requests are about, if the transport serves several caches. */
    readonly about: () => CacheRef | null = () => null,
  ) {
    transport.onMessage((message, buffers) => this.#receive(message, buffers), signal);
    transport.onLost?.(() => this.#lose(), signal);
    transport.onRenewed?.(() => this.#renew(), signal);
    signal.addEventListener("abort", () => this.#fail("closed", "The view was closed."), { once: true });
  }

  /** The number of requests whose answer has not been drawn yet, without those sent quietly or in advance. */
  get inFlight(): ReadonlySignal<number> {
    return this.#inFlight;
  }
  /** Whether the kernel side is gone. */
  get lost(): ReadonlySignal<boolean> {
    return this.#lost;
  }
  /** Whether there has been no answer for long, and the host could not report a lost kernel. An answer resets it. */
  get unanswered(): ReadonlySignal<boolean> {
    return this.#unanswered;
  }
  /** The number of answers that this client has received. */
  get heard(): ReadonlySignal<number> {
    return this.#heard;
  }

  /** The progress of the long job that is running; null if there is none. */
  get progress(): ReadonlySignal<Progress | null> {
    return this.#progress;
  }

  /** Sends a request. The promise rejects with `RequestFailed`. */
  ask<K extends Kind>(
    ask: Extract<Ask, { kind: K }>,
    id = this.#id(),
    cache: CacheRef | null = this.about(),
  ): Promise<Result<K>> {
    this.#inFlight.value += 1;
    // Decreased in a later task, so that "nothing in flight" means that all answers are on screen.
    return this.#send(ask, () => setTimeout(() => (this.#inFlight.value -= 1), 0), id, cache);
  }

  /** A request during which the view does not count as loading, for example one of many in a long measurement. */
  quietly<K extends Kind>(ask: Extract<Ask, { kind: K }>): Promise<Result<K>> {
    return this.#send(ask, () => undefined);
  }

  /**
   * A request in advance. It is sent when it delays nothing else. Null if `signal` aborted before that, or if the
   * request failed.
   */
  async spare<K extends Kind>(ask: Extract<Ask, { kind: K }>, signal: AbortSignal): Promise<Result<K> | null> {
    return (await this.spareAll([ask], signal))[0] ?? null;
  }

  /** Several such requests together: null for each that failed; an empty list if `signal` aborted first. */
  async spareAll<K extends Kind>(
    asks: Extract<Ask, { kind: K }>[],
    signal: AbortSignal,
  ): Promise<(Result<K> | null)[]> {
    const waiting = child(signal, this.signal);
    while (!waiting.signal.aborted && !this.#idle.peek()) await until(this.#idle, waiting.signal);
    if (waiting.signal.aborted) return [];
    waiting.abort(); // removes its listeners
    this.#spare.value = true;
    const answers = asks.map((ask) => this.#send(ask, () => undefined).catch(() => null));
    return Promise.all(answers).finally(() => (this.#spare.value = false));
  }

  #id(): string {
    return `${this.#prefix}-${++this.#count}`;
  }

  #send<K extends Kind>(
    asked: Extract<Ask, { kind: K }>,
    ended: () => void,
    id = this.#id(),
    cache = this.about(),
  ): Promise<Result<K>> {
    const padding = this.padding();
    const ask = padding === "found" || asked.kind === "give-up" ? asked : { ...asked, padding };
    return new Promise<Result<K>>((resolve, reject) => {
      if (this.#lost.peek()) {
        ended();
        return reject(new RequestFailed("lost", "The kernel side of this view is gone."));
      }
      const takesTurns = (ask.kind === "effects" || ask.kind === "without") && this.transport.takeTurn !== undefined;
      const question: Question = { id, ask, ...(cache ? { cache } : {}), ...(takesTurns ? { gives_turns: true } : {}) };
      this.#waiting.set(id, {
        question,
        long: false,
        settle: (outcome) => {
          ended();
          if (![...this.#waiting.values()].some((waiting) => waiting.long)) this.#progress.value = null;
          if (outcome instanceof RequestFailed) reject(outcome);
          else resolve(outcome as unknown as Result<K>);
        },
      });
      this.#transmit(question);
      if (!this.#silence) this.#listen();
    });
  }

  /** Measures the time without an answer while requests are waiting. */
  #listen(asked = 1): void {
    this.#silence?.abort();
    this.#silence = null;
    if (!this.transport.isSilenceLoss || this.#waiting.size === 0 || this.signal.aborted) return;
    this.#silence = child(this.signal);
    later(SILENCE_MS, this.#silence.signal, () => {
      if (!this.transport.isSilenceLoss?.()) return this.#listen(asked);
      if (asked > 1) return void (this.#unanswered.value = true);
      for (const { question } of [...this.#waiting.values()]) this.#transmit(question);
      this.#listen(asked + 1);
    });
  }

  /** The newest request of a view wins: an older one resolves to null and is never drawn. */
  latest<K extends Kind>(
    view: string,
    ask: Extract<Ask, { kind: K }>,
    cache: CacheRef | null = this.about(),
  ): Promise<Result<K> | null> {
    return new Promise((resolve, reject) => {
      const start = (): void => {
        const lane: Lane = { id: this.#id(), busySince: Date.now(), next: null };
        this.#lanes.set(view, lane);
        const finish = (draw: () => void): void => {
          const overtaken = this.#lanes.get(view) !== lane || lane.next !== null;
          if (this.#lanes.get(view) === lane) this.#lanes.delete(view);
          if (overtaken) resolve(null);
          else draw();
          lane.next?.start();
        };
        this.ask(ask, lane.id, cache).then(
          (result) => finish(() => resolve(result)),
          (error: unknown) => finish(() => reject(error)),
        );
      };
      const lane = this.#lanes.get(view);
      if (lane) {
        lane.next?.drop();
        lane.next = null; // else it would start after this newer request
        this.#giveUp(lane.id);
      }
      if (!lane || Date.now() - lane.busySince > PATIENCE_MS) return start();
      lane.next = { start, drop: () => resolve(null) };
    });
  }

  /** Cancels a view's request if it is a long job. The promise of the request then resolves to null. */
  leave(view: string): void {
    const lane = this.#lanes.get(view);
    if (!lane || !this.#waiting.get(lane.id)?.long) return;
    this.#lanes.delete(view);
    lane.next?.drop();
    lane.next = null;
    this.#giveUp(lane.id);
  }

  #giveUp(id: string): void {
    const waiting = this.#waiting.get(id);
    if (!waiting?.long) return; // no long job: the answer comes soon
    this.#waiting.delete(id);
    waiting.settle(new RequestFailed("given-up", "This was cancelled."));
    // This goes to the cache of the request, because the view may show another cache by now. A failure does not matter:
    // a kernel that is gone has no jobs.
    this.#send({ kind: "give-up", id }, () => {}, this.#id(), waiting.question.cache ?? null).catch(() => {});
  }

  #receive(message: unknown, buffers: DataView[]): void {
    if (!isAnswer(message)) return;
    const waiting = this.#waiting.get(message.id);
    if (!waiting) return; // the answer belongs to another view, or comes too late
    this.#heard.value += 1;
    this.#unanswered.value = false;
    const { reply, failure } = message;
    if (reply?.kind === "working") {
      waiting.long = true;
      this.#progress.value = { done: reply.done, total: reply.total };
      this.#transmit(waiting.question);
      this.#listen();
      return;
    }
    this.#waiting.delete(message.id);
    this.#listen();
    if (reply && isReplyTo(waiting.question.ask, reply)) waiting.settle({ reply, buffers });
    else waiting.settle(asError(failure));
  }

  #transmit(question: Question): void {
    try {
      this.transport.send(question);
    } catch {
      this.#lose(); // a comm whose kernel was restarted throws
    }
  }

  #lose(): void {
    if (this.#lost.peek()) return;
    this.#lost.value = true;
    this.#unanswered.value = false;
    this.#fail("lost", "The kernel side of this view is gone.");
  }

  /** Sends unanswered requests again. They change nothing in the kernel, so sending one twice is harmless. */
  #renew(): void {
    this.#lost.value = false;
    for (const { question } of [...this.#waiting.values()]) this.#transmit(question);
  }

  #fail(code: string, message: string): void {
    const all = [...this.#waiting.values()];
    this.#waiting.clear();
    this.#silence?.abort();
    this.#silence = null;
    for (const waiting of all) waiting.settle(new RequestFailed(code, message));
  }
}

function isAnswer(message: unknown): message is Answer {
  return typeof message === "object" && message !== null && typeof (message as { id?: unknown }).id === "string";
}

function asError(failure: Failure | null | undefined): RequestFailed {
  if (failure) return new RequestFailed(failure.code, legible(failure.message));
  return new RequestFailed(
    "bad-answer",
    "The kernel’s reply does not match the request. Its Residscope may be another version: restart the kernel " +
      "and reload the page.",
  );
}

/** The numbers in a float32 buffer; copied if its offset is not a multiple of four. */
export function float32(view: DataView | undefined): Float32Array {
  if (!view) return new Float32Array(0);
  const length = Math.floor(view.byteLength / 4);
  if (view.byteOffset % 4 === 0) return new Float32Array(view.buffer as ArrayBuffer, view.byteOffset, length);
  return new Float32Array(copy(view, length * 4));
}

/** The raw 16-bit words of a float16 buffer; see wire/half.ts. */
export function words16(view: DataView | undefined): Uint16Array {
  if (!view) return new Uint16Array(0);
  const length = Math.floor(view.byteLength / 2);
  if (view.byteOffset % 2 === 0) return new Uint16Array(view.buffer as ArrayBuffer, view.byteOffset, length);
  return new Uint16Array(copy(view, length * 2));
}

function copy(view: DataView, byteLength: number): ArrayBuffer {
  return (view.buffer as ArrayBuffer).slice(view.byteOffset, view.byteOffset + byteLength);
}

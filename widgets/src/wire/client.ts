// Requests over a transport. It knows ids, buffers and "the newest wins"; not who carries the messages, nor what is
// drawn.
import { computed, type ReadonlySignal, signal as state } from "@preact/signals-core";
import { randomId } from "../base/ids";
import { legible } from "../base/legible";
import { child, later, until } from "../base/lifetime";
import { fits } from "./fits";
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
 * Who carries messages: anywidget, a Jupyter comm, VS Code. `onLost` tells that nobody answers any more, `onRenewed`
 * that somebody does (again).
 */
export interface Transport {
  send(message: Question, buffers?: ArrayBuffer[]): void;
  onMessage(listener: (message: unknown, buffers: DataView[]) => void, signal: AbortSignal): void;
  onLost?(listener: () => void, signal: AbortSignal): void;
  onRenewed?(listener: () => void, signal: AbortSignal): void;
  /** Whether the kernel has the user's work to do, where that can be determined. */
  readonly occupied?: ReadonlySignal<boolean>;
  /** Whether the user sees each exchange with the kernel: then little is asked ahead, and in one go. */
  readonly thrifty?: boolean;
  /** Whether, as far as can be determined now, its silence means that the kernel is gone: where nobody else may say so. */
  isSilenceLoss?(): boolean;
}

/** The kernel's refusal, with its stable code and a sentence that names the remedy. */
export class RequestFailed extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
    this.name = "RequestFailed";
  }
}

/** How far the kernel is with a long answer; `total` is 0 where that is not known. */
export interface Progress {
  done: number;
  total: number;
}
interface Waiting {
  question: Question;
  /** The kernel works on it, and has said so. */
  long: boolean;
  settle: (outcome: Result<Kind> | RequestFailed) => void;
}
interface Lane {
  id: string;
  busySince: number;
  next: { start: () => void; drop: () => void } | null;
}

/** A lane stuck for this long (a lost message) lets the next request through. */
const PATIENCE_MS = 30_000;
/** What nobody has answered for as long is asked again, once; after as long again it is said that nobody answers. */
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
  /** What the views count as real: every request says so. */
  padding: () => NonNullable<Shown["padding"]> = () => "found";
  readonly #spare = state(false);
  /** Whether a request that nobody waits for would be in nobody's way: nothing is under way, and the kernel is free. */
  readonly #idle = computed(
    () => !this.#spare.value && this.#inFlight.value === 0 && !this.#lost.value && !this.transport.occupied?.value,
  );

  constructor(
    readonly transport: Transport,
    readonly signal: AbortSignal,
    /** Which cache the questions are about, where the transport carries questions about several. */
    readonly about: () => CacheRef | null = () => null,
  ) {
    transport.onMessage((message, buffers) => this.#receive(message, buffers), signal);
    transport.onLost?.(() => this.#lose(), signal);
    transport.onRenewed?.(() => this.#renew(), signal);
    signal.addEventListener("abort", () => this.#fail("closed", "The view was closed."), { once: true });
  }

  /** Requests whose answer has not been drawn yet. */
  get inFlight(): ReadonlySignal<number> {
    return this.#inFlight;
  }
  /** Whether the kernel side is gone. */
  get lost(): ReadonlySignal<boolean> {
    return this.#lost;
  }
  /** Whether nobody has answered for long, and nobody would tell that the kernel is gone. An answer ends it. */
  get unanswered(): ReadonlySignal<boolean> {
    return this.#unanswered;
  }
  /** Counts answers: changes whenever the kernel spoke. */
  get heard(): ReadonlySignal<number> {
    return this.#heard;
  }

  /** How far the kernel is with what takes long; null where nothing does. */
  get progress(): ReadonlySignal<Progress | null> {
    return this.#progress;
  }

  /** One request; rejects with `RequestFailed`. */
  ask<K extends Kind>(ask: Extract<Ask, { kind: K }>, id = this.#id()): Promise<Result<K>> {
    this.#inFlight.value += 1;
    // Counted down in a later task, so that "nothing in flight" means that what was asked is on screen.
    return this.#send(ask, () => setTimeout(() => (this.#inFlight.value -= 1), 0), id);
  }

  /**
   * A request that nobody waits for, sent once it is in nobody's way: null where `signal` ended before that, and where
   * it failed.
   */
  async spare<K extends Kind>(ask: Extract<Ask, { kind: K }>, signal: AbortSignal): Promise<Result<K> | null> {
    return (await this.spareAll([ask], signal))[0] ?? null;
  }

  /** Several of them in one go; each null where it failed, and none where `signal` ended before. */
  async spareAll<K extends Kind>(
    asks: Extract<Ask, { kind: K }>[],
    signal: AbortSignal,
  ): Promise<(Result<K> | null)[]> {
    const wanted = AbortSignal.any([signal, this.signal]);
    while (!wanted.aborted && !this.#idle.peek()) await until(this.#idle, wanted);
    if (wanted.aborted) return [];
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
      const question: Question = cache ? { id, ask, cache } : { id, ask };
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

  /** Counts the time without an answer while there is something to answer. */
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

  /** The newest request of a view wins: an older one that is overtaken resolves to null and is never drawn. */
  latest<K extends Kind>(view: string, ask: Extract<Ask, { kind: K }>): Promise<Result<K> | null> {
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
        this.ask(ask, lane.id).then(
          (result) => finish(() => resolve(result)),
          (error: unknown) => finish(() => reject(error)),
        );
      };
      const lane = this.#lanes.get(view);
      if (!lane || Date.now() - lane.busySince > PATIENCE_MS) return start();
      lane.next?.drop();
      lane.next = { start, drop: () => resolve(null) };
      this.#giveUp(lane.id);
    });
  }

  /** A view does not want its answer any more: what takes long is given up. It resolves to null. */
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
    if (!waiting?.long) return; // it will be there in a moment
    this.#waiting.delete(id);
    waiting.settle(new RequestFailed("given-up", "This was cancelled."));
    // Where it was asked: another cache may be looked at by now.
    this.#send({ kind: "give-up", id }, () => {}, this.#id(), waiting.question.cache ?? null).catch(() => {}); // a kernel that is gone has given up already
  }

  #receive(message: unknown, buffers: DataView[]): void {
    if (!isAnswer(message)) return;
    const waiting = this.#waiting.get(message.id);
    if (!waiting) return; // another view's answer, or one that came too late
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
    if (reply && fits(waiting.question.ask, reply)) waiting.settle({ reply, buffers });
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

  /** What was asked and not answered is asked again: it changes nothing, so twice does no harm. */
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
    "The kernel answered with something else than what was asked. Are its versions mixed?",
  );
}

/** float32 buffer → numbers; copied when it does not lie on a multiple of four. */
export function float32(view: DataView | undefined): Float32Array {
  if (!view) return new Float32Array(0);
  const length = Math.floor(view.byteLength / 4);
  if (view.byteOffset % 4 === 0) return new Float32Array(view.buffer as ArrayBuffer, view.byteOffset, length);
  return new Float32Array(copy(view, length * 4));
}

/** float16 buffer → its raw 16-bit words; see draw/half.ts. */
export function words16(view: DataView | undefined): Uint16Array {
  if (!view) return new Uint16Array(0);
  const length = Math.floor(view.byteLength / 2);
  if (view.byteOffset % 2 === 0) return new Uint16Array(view.buffer as ArrayBuffer, view.byteOffset, length);
  return new Uint16Array(copy(view, length * 2));
}

function copy(view: DataView, byteLength: number): ArrayBuffer {
  return (view.buffer as ArrayBuffer).slice(view.byteOffset, view.byteOffset + byteLength);
}

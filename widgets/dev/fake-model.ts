// A fake anywidget model with a fake kernel in the page, for the harness and the tests.
import type { AnyModel } from "@anywidget/types";
import type { Traits } from "../src/entry/anywidget";
import type { Answer, Question } from "../src/wire/protocol.gen";

export type Kernel = (
  ask: Question["ask"],
) => { reply: NonNullable<Answer["reply"]>; buffers?: ArrayBuffer[] } | { failure: { code: string; message: string } };
type Listener = (...args: unknown[]) => void;

export class FakeModel {
  readonly asked: Question[] = [];
  readonly saved: Partial<Traits>[] = [];
  readonly #listeners = new Map<string, Set<Listener>>();
  #dirty: Partial<Traits> = {};

  constructor(
    readonly state: Traits,
    readonly kernel: Kernel,
    readonly delay: () => number = () => 20,
  ) {}

  get<K extends keyof Traits>(name: K): Traits[K] {
    return this.state[name];
  }
  set<K extends keyof Traits>(name: K, value: Traits[K]): void {
    if (JSON.stringify(this.state[name]) === JSON.stringify(value)) return;
    this.state[name] = value;
    this.#dirty[name] = value;
    this.emit(`change:${name}`);
  }
  save_changes(): void {
    this.saved.push(this.#dirty);
    this.#dirty = {};
  }
  on(event: string, listener: Listener): void {
    const all = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, all.add(listener));
  }
  off(event?: string | null, listener?: Listener | null): void {
    if (event && listener) this.#listeners.get(event)?.delete(listener);
  }
  emit(event: string, ...args: unknown[]): void {
    for (const listener of [...(this.#listeners.get(event) ?? [])]) listener(...args);
  }
  listeners(): number {
    return [...this.#listeners.values()].reduce((sum, all) => sum + all.size, 0);
  }
  send(question: Question): void {
    this.asked.push(question);
    const wait = this.delay();
    if (wait === Infinity) return;
    setTimeout(() => {
      const answer = this.kernel(question.ask);
      if ("failure" in answer) this.emit("msg:custom", { id: question.id, failure: answer.failure }, []);
      else this.emit("msg:custom", { id: question.id, reply: answer.reply }, (answer.buffers ?? []).map(unaligned));
    }, wait);
  }
  asAnyModel(): AnyModel<Traits> {
    return this as unknown as AnyModel<Traits>;
  }
}

/** A buffer as a page receives it: a view into a larger message, at an odd offset. */
function unaligned(buffer: ArrayBuffer): DataView {
  const whole = new Uint8Array(buffer.byteLength + 5);
  whole.set(new Uint8Array(buffer), 5);
  return new DataView(whole.buffer, 5);
}

// Who listens, until an AbortSignal ends it; and sources of the hosts, listened to in the same way.

export class Listeners<A extends unknown[] = []> {
  readonly #all = new Set<(...told: A) => void>();

  get size(): number {
    return this.#all.size;
  }

  add(listener: (...told: A) => void, signal: AbortSignal): void {
    if (signal.aborted) return;
    this.#all.add(listener);
    signal.addEventListener("abort", () => this.#all.delete(listener), { once: true });
  }

  tell(...told: A): void {
    for (const listener of [...this.#all]) listener(...told);
  }
}

/** Lumino's signals. */
interface Signal<S, A> {
  connect(slot: (sender: S, args: A) => void): unknown;
  disconnect(slot: (sender: S, args: A) => void): unknown;
}
/** VS Code's events. */
type Event<A> = (listener: (args: A) => void) => { dispose(): unknown };

/** Hears what a signal of Lumino's or an event of VS Code's tells, until `signal` aborts. */
export function listen<A, S = unknown>(
  source: Signal<S, A> | Event<A>,
  listener: (args: A) => void,
  signal: AbortSignal,
): void {
  if (signal.aborted) return;
  let stop: () => unknown;
  if ("connect" in source) {
    const slot = (_sender: S, args: A): void => listener(args);
    source.connect(slot);
    stop = () => source.disconnect(slot);
  } else {
    const heard = source(listener);
    stop = () => heard.dispose();
  }
  signal.addEventListener("abort", stop, { once: true });
}

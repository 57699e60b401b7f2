// A set of listeners, and a way to listen to the hosts' events. A listener is removed when its AbortSignal aborts.

export class Listeners<A extends unknown[] = []> {
  readonly #all = new Set<(...args: A) => void>();

  get size(): number {
    return this.#all.size;
  }

  add(listener: (...args: A) => void, signal: AbortSignal): void {
    if (signal.aborted) return;
    this.#all.add(listener);
    signal.addEventListener("abort", () => this.#all.delete(listener), { once: true });
  }

  notify(...args: A): void {
    for (const listener of [...this.#all]) listener(...args);
  }
}

/** Lumino's signals. */
interface Signal<S, A> {
  connect(slot: (sender: S, args: A) => void): unknown;
  disconnect(slot: (sender: S, args: A) => void): unknown;
}
/** VS Code's events. */
type Event<A> = (listener: (args: A) => void) => { dispose(): unknown };

/** Calls `listener` for a Lumino signal or a VS Code event, until `signal` aborts. */
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
    const subscription = source(listener);
    stop = () => subscription.dispose();
  }
  signal.addEventListener("abort", stop, { once: true });
}

// A map of bounded size.

/** Keeps what was used last: beyond `limit`, what was not used for the longest goes first, and what came last stays. */
export class Lru<K, V> {
  readonly #kept = new Map<K, V>();
  #size = 0;

  constructor(
    readonly limit: number,
    readonly sizeOf: (value: V) => number = () => 1,
  ) {}

  get size(): number {
    return this.#size;
  }

  /** From the one that was not used for the longest to the latest. */
  values(): V[] {
    return [...this.#kept.values()];
  }

  /** The value, which counts as used. */
  get(key: K): V | undefined {
    const value = this.#kept.get(key);
    if (value === undefined) return undefined;
    this.#kept.delete(key); // to the end of the line
    this.#kept.set(key, value);
    return value;
  }

  /** The value, its place in line unchanged. */
  peek(key: K): V | undefined {
    return this.#kept.get(key);
  }

  set(key: K, value: V): void {
    this.delete(key);
    this.#kept.set(key, value);
    this.#size += this.sizeOf(value);
    for (const old of this.#kept.keys()) {
      if (this.#size <= this.limit || old === key) break;
      this.delete(old);
    }
  }

  delete(key: K): void {
    const value = this.#kept.get(key);
    if (value !== undefined && this.#kept.delete(key)) this.#size -= this.sizeOf(value);
  }
}

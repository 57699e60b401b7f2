// A map of limited size.

/**
 * A map whose values together have at most the size `limit`: the least recently used entries are removed. The newest
 * entry always stays.
 */
export class Lru<K, V> {
  readonly #entries = new Map<K, V>();
  #size = 0;

  constructor(
    readonly limit: number,
    readonly sizeOf: (value: V) => number = () => 1,
  ) {}

  get size(): number {
    return this.#size;
  }

  /** The values, from the least to the most recently used. */
  values(): V[] {
    return [...this.#entries.values()];
  }

  /** The value of a key. Its entry then counts as used. */
  get(key: K): V | undefined {
    const value = this.#entries.get(key);
    if (value === undefined) return undefined;
    this.#entries.delete(key); // moves the entry to the end
    this.#entries.set(key, value);
    return value;
  }

  /** The value of a key, without counting its entry as used. */
  peek(key: K): V | undefined {
    return this.#entries.get(key);
  }

  set(key: K, value: V): void {
    this.delete(key);
    this.#entries.set(key, value);
    this.#size += this.sizeOf(value);
    for (const old of this.#entries.keys()) {
      if (this.#size <= this.limit || old === key) break;
      this.delete(old);
    }
  }

  delete(key: K): void {
    const value = this.#entries.get(key);
    if (value !== undefined && this.#entries.delete(key)) this.#size -= this.sizeOf(value);
  }
}

// Attention matrices already asked for: a small least-recently-used store, so that pinning, unpinning and going back draw at once.
import { type Client, float32, words16 } from "../client";
import { halves } from "../draw/half";
import type { Matrix } from "../draw/matrix";
import { parseHead } from "../format";
import type { Store } from "../store";
import { isSet, targetKey } from "../target";

export interface Attention {
  matrix: Matrix;
  brings: Float32Array | null;
  notes: string[];
}

const MOST_CELLS = 8_000_000; // 32 MB of float32

export class AttentionStore {
  readonly #kept = new Map<string, Attention>();
  #cells = 0;

  constructor(
    readonly store: Store,
    readonly client: Client,
  ) {}

  /** Identifies what a head's attention depends on; reading it in an effect subscribes to all of it. */
  key(head: string): string {
    const { source, prompt, locked, target } = this.store;
    return [source.value, head, prompt.value, locked.value, targetKey(target.value)].join(" ");
  }

  kept(key: string): Attention | null {
    const found = this.#kept.get(key);
    if (!found) return null;
    this.#kept.delete(key); // to the end of the line
    this.#kept.set(key, found);
    return found;
  }

  /** Null when overtaken by a newer request of the same card. */
  async read(lane: string, head: string, key: string): Promise<Attention | null> {
    const at = parseHead(head);
    const { target, prompt, locked } = this.store;
    if (!at || !isSet(target.peek())) return null;
    const result = await this.client.latest(lane, {
      kind: "attention", ...at, target: target.peek(), prompt: prompt.peek(), position: locked.peek(),
    });
    if (!result) return null;
    const buffer = (what: string): DataView | undefined => result.buffers[result.reply.parts.findIndex((part) => part.what === what)];
    const values = halves(words16(buffer("pattern")));
    const attention: Attention = {
      matrix: { size: result.reply.positions, values },
      brings: buffer("brings") ? float32(buffer("brings")) : null,
      notes: result.reply.notes,
    };
    this.#kept.set(key, attention);
    this.#cells += values.length;
    for (const [old, { matrix }] of this.#kept) {
      if (this.#cells <= MOST_CELLS || old === key) break;
      this.#kept.delete(old);
      this.#cells -= matrix.values.length;
    }
    return attention;
  }
}

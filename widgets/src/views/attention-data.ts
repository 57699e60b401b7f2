// Attention maps already asked for: a small least-recently-used store, so that pinning, unpinning and going back draw at once.
import { type Client, float32, type Result, words16 } from "../client";
import { halves } from "../draw/half";
import { parseHead } from "../format";
import type { ReadAttention } from "../protocol.gen";
import type { Store, Weighting } from "../store";
import { isSet, targetKey } from "../target";

export interface Attention {
  size: number;
  /** [destination, source], row-major, those that are there. */
  maps: Partial<Record<Weighting, Float32Array>>;
  /** What each source brings at the destination that was asked for. */
  brings: Float32Array | null;
  /** That destination, where it was locked; null is the last. */
  locked: number | null;
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

  /** What is there with this weighting. */
  kept(key: string, weighting: Weighting): Attention | null {
    const found = this.#kept.get(key);
    if (!found?.maps[weighting]) return null;
    this.#kept.delete(key); // to the end of the line
    this.#kept.set(key, found);
    return found;
  }

  has(head: string, weighting: Weighting): boolean {
    return this.#kept.get(this.key(head))?.maps[weighting] !== undefined;
  }

  /** Null when overtaken by a newer request of the same lane. */
  async read(lane: string, head: string, key: string, weighting: Weighting): Promise<Attention | null> {
    const ask = this.#ask(head, weighting);
    const result = ask && (await this.client.latest(lane, ask));
    return result ? this.#keep(key, attentionOf(result, ask.position ?? null), weighting) : null;
  }

  /** Asks ahead of need; whether it came. It drives nothing out: where there is no more room, it is not kept. */
  async readAhead(head: string, weighting: Weighting): Promise<boolean> {
    const key = this.key(head);
    const ask = this.#ask(head, weighting);
    const result = ask && (await this.client.spare(ask));
    if (!result) return false;
    const fresh = attentionOf(result, ask.position ?? null);
    if (!this.#kept.has(key) && this.#cells + cellsOf(fresh) <= MOST_CELLS) this.#keep(key, fresh, weighting);
    return true;
  }

  #ask(head: string, weighting: Weighting): ReadAttention | null {
    const at = parseHead(head);
    const { target, prompt, locked } = this.store;
    if (!at || !isSet(target.peek())) return null;
    return { kind: "attention", ...at, target: target.peek(), prompt: prompt.peek(), position: locked.peek(), weighting };
  }

  /** Maps of other weightings that were there before stay; one that was asked for and did not come is no more. */
  #keep(key: string, fresh: Attention, asked: Weighting): Attention {
    const before = this.#kept.get(key);
    if (before) this.#drop(key, before);
    const kept = before?.size === fresh.size ? { ...fresh, maps: { ...before.maps, ...fresh.maps } } : fresh;
    if (!fresh.maps[asked]) delete kept.maps[asked];
    this.#kept.set(key, kept);
    this.#cells += cellsOf(kept);
    for (const [old, attention] of this.#kept) {
      if (this.#cells <= MOST_CELLS || old === key) break;
      this.#drop(old, attention);
    }
    return kept;
  }

  #drop(key: string, attention: Attention): void {
    this.#kept.delete(key);
    this.#cells -= cellsOf(attention);
  }
}

function attentionOf({ reply, buffers }: Result<"attention">, locked: number | null): Attention {
  const fresh: Attention = { size: reply.positions, maps: {}, brings: null, locked, notes: reply.notes };
  reply.parts.forEach(({ what, scale = 1 }, i) => {
    if (what === "brings") fresh.brings = float32(buffers[i]);
    else fresh.maps[what] = scaled(halves(words16(buffers[i])), scale);
  });
  return fresh;
}

/** Why a map that was asked for did not come. */
export function whyMissing({ notes }: Attention): string {
  return notes.length > 0 ? notes.join(" ") : "The kernel sent no such map.";
}

function cellsOf({ maps }: Attention): number {
  return Object.values(maps).reduce((sum, map) => sum + map.length, 0);
}

export function scaled(values: Float32Array, scale: number): Float32Array {
  if (scale !== 1) for (let i = 0; i < values.length; i += 1) values[i] = (values[i] ?? 0) * scale;
  return values;
}

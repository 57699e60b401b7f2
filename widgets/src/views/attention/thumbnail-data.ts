// Requests thumbnails: one layer per request, only visible layers, and few at once, so that fast scrolling does not
// build up a queue.
import { signal as state, untracked } from "@preact/signals-core";
import { watch } from "../../base/lifetime";
import { isOutdated } from "../../state/loader";
import { thumbnails } from "../../state/questions";
import type { Weighting } from "../../state/store";
import { targetKey } from "../../state/target";
import type { AttentionRoom } from "./attention-room";

const AT_ONCE = 2;

export interface LayerOfThumbnails {
  weighting: Weighting;
  side: number;
  /** [head, side, side], in units of 1/127 of the head's limit. */
  cells: Int8Array;
  /** NaN if the head does not exist. */
  limits: number[];
  notes: string[];
}

export class ThumbnailStore {
  readonly layers = state<ReadonlyMap<number, LayerOfThumbnails>>(new Map());
  readonly trouble = state<string | null>(null);
  readonly #inSight = new Set<number>();
  /** The key of each layer's last request. */
  readonly #fresh = new Map<number, string>();
  #key = "";
  #visible = false;
  #underway = 0;

  constructor(
    readonly room: AttentionRoom,
    visible: { value: boolean },
    readonly signal: AbortSignal,
  ) {
    const { store } = room;
    watch(signal, () => {
      const { source, prompt, target, weighting } = store;
      const key = [source.value, prompt.value, targetKey(target.value), weighting.value].join(" ");
      const on = visible.value;
      untracked(() => {
        this.#key = key;
        this.#visible = on; // answers that come while hidden are kept
        this.#next();
      });
    });
  }

  see(layer: number, inSight: boolean): void {
    if (inSight) this.#inSight.add(layer);
    else this.#inSight.delete(layer);
    this.#next();
  }

  #next(): void {
    const { store } = this.room;
    if (!this.#visible || this.signal.aborted || !store.settled.peek()) return;
    const waiting = [...this.#inSight].filter((layer) => this.#fresh.get(layer) !== this.#key).sort((a, b) => a - b);
    for (const layer of waiting) {
      if (this.#underway >= AT_ONCE) return;
      void this.#ask(layer, this.#key);
    }
  }

  async #ask(layer: number, key: string): Promise<void> {
    const { store, client } = this.room;
    const weighting = store.weighting.peek();
    this.#fresh.set(layer, key);
    this.#underway += 1;
    try {
      const ask = untracked(() => thumbnails(store.shown, layer));
      const result = await client.latest(`thumbnails ${layer}`, ask);
      const buffer = result?.buffers[0];
      if (!result || !buffer || this.signal.aborted || key !== this.#key) return;
      const cells = new Int8Array(buffer.buffer as ArrayBuffer, buffer.byteOffset, buffer.byteLength);
      this.layers.value = new Map(this.layers.peek()).set(layer, {
        weighting,
        side: result.reply.side,
        cells,
        limits: result.reply.limits.map((limit) => limit ?? NaN),
        notes: result.reply.notes,
      });
      this.trouble.value = null;
    } catch (error) {
      if (!this.signal.aborted && !isOutdated(error, store))
        this.trouble.value = error instanceof Error ? error.message : String(error);
    } finally {
      this.#underway -= 1;
      this.#next();
    }
  }
}

/** The value of a head's cell farthest from zero. */
export function largest({ cells, side, limits }: LayerOfThumbnails, head: number): number {
  const own = cells.subarray(head * side * side, (head + 1) * side * side);
  const limit = limits[head] ?? NaN;
  let most = 0;
  for (const cell of own) if (Math.abs(cell) > Math.abs(most)) most = cell;
  return most < 0 ? -limit : limit;
}

// Requests thumbnails, one layer per request. Only visible layers are requested, and only a few at a time, so that fast
// scrolling does not cause a long queue.
import { computed, signal as state, untracked } from "@preact/signals-core";
import { watch } from "../../base/lifetime";
import { EMPTY } from "../../draw/thumbnail";
import { isOutdated } from "../../state/loader";
import { thumbnails } from "../../state/questions";
import type { Weighting } from "../../state/store";
import { targetKey } from "../../state/target";
import type { AttentionRoom } from "./attention-room";

/** At most this many requests run at a time. */
const MAX_REQUESTS = 2;

export interface LayerOfThumbnails {
  /** The key of the selection that the thumbnails belong to. */
  key: string;
  weighting: Weighting;
  side: number;
  /** [head, side, side], in units of 1/127 of the head's limit; `EMPTY` if not known. */
  cells: Int8Array;
  /** The largest absolute value of each head; NaN if the head does not exist, or its values are not known. */
  limits: number[];
  notes: string[];
  /** Whether there is no picture, because the request failed. */
  hasFailed?: boolean;
}

export class ThumbnailStore {
  readonly layers = state<ReadonlyMap<number, LayerOfThumbnails>>(new Map());
  /** Why a layer has no picture for the present selection; null if no request was refused. */
  readonly trouble = computed(
    () => this.#present.value.find(({ hasFailed, notes }) => hasFailed && notes.length > 0)?.notes[0] ?? null,
  );
  readonly #visibleLayers = new Set<number>();
  /** For each layer, the key of the selection for which thumbnails were last requested. */
  readonly #requestedKeys = new Map<number, string>();
  /** The layers whose last request failed. They are requested again when they are seen again. */
  readonly #failed = new Set<number>();
  readonly #key = state("");
  readonly #present = computed(() => [...this.layers.value.values()].filter(({ key }) => key === this.#key.value));
  /**
   * The largest absolute value in the thumbnails of the present selection, and its weighting; null before any of them
   * has arrived.
   */
  readonly limit = computed(() => {
    const present = this.#present.value.filter(({ hasFailed }) => !hasFailed);
    const limits = present.flatMap(({ limits }) => limits.filter(Number.isFinite));
    return present[0] ? { weighting: present[0].weighting, largest: Math.max(0, ...limits) } : null;
  });
  #isVisible = false;
  #requestCount = 0;

  constructor(
    readonly room: AttentionRoom,
    visible: { value: boolean },
    readonly signal: AbortSignal,
  ) {
    const { store } = room;
    watch(signal, () => {
      const { dataKey, prompt, target, weighting } = store;
      const key = [dataKey.value, prompt.value, targetKey(target.value), weighting.value].join(" ");
      const isVisible = visible.value;
      void store.answersAgain.value;
      untracked(() => {
        for (const layer of this.#failed) this.#requestedKeys.delete(layer);
        this.#failed.clear();
        this.#key.value = key;
        this.#isVisible = isVisible; // replies that arrive while the view is hidden are kept
        this.#requestNext();
      });
    });
  }

  /** Call this when the thumbnails of a layer enter or leave the visible part of the box. */
  see(layer: number, inSight: boolean): void {
    if (inSight) this.#visibleLayers.add(layer);
    else this.#visibleLayers.delete(layer);
    if (inSight && this.#failed.delete(layer)) this.#requestedKeys.delete(layer);
    this.#requestNext();
  }

  #requestNext(): void {
    const { store } = this.room;
    if (!this.#isVisible || this.signal.aborted || !store.settled.peek()) return;
    const layers = store.facts.peek()?.layers ?? 0; // the visible layers may be those of an earlier, deeper model
    const waiting = [...this.#visibleLayers]
      .filter((layer) => layer < layers && this.#requestedKeys.get(layer) !== this.#key.peek())
      .sort((a, b) => a - b);
    for (const layer of waiting) {
      if (this.#requestCount >= MAX_REQUESTS) return;
      void this.#ask(layer, this.#key.peek());
    }
  }

  async #ask(layer: number, key: string): Promise<void> {
    const { store, client } = this.room;
    const weighting = store.weighting.peek();
    this.#requestedKeys.set(layer, key);
    this.#requestCount += 1;
    try {
      const ask = untracked(() => thumbnails(store.shown, layer));
      const result = await client.latest(`thumbnails ${layer}`, ask);
      const buffer = result?.buffers[0];
      if (!result || !buffer || this.signal.aborted || key !== this.#key.peek()) return;
      const cells = new Int8Array(buffer.buffer as ArrayBuffer, buffer.byteOffset, buffer.byteLength);
      this.layers.value = new Map(this.layers.peek()).set(layer, {
        key,
        weighting,
        side: result.reply.side,
        cells,
        limits: result.reply.limits.map((limit) => limit ?? NaN),
        notes: result.reply.notes,
      });
    } catch (error) {
      if (this.signal.aborted || key !== this.#key.peek()) return;
      const why = isOutdated(error, store) ? null : error instanceof Error ? error.message : String(error);
      this.#fail(layer, key, weighting, why);
    } finally {
      // The reply was for an earlier selection. It is requested again if the user returns to that selection.
      if (key !== this.#key.peek() && this.#requestedKeys.get(layer) === key) this.#requestedKeys.delete(layer);
      this.#requestCount -= 1;
      this.#requestNext();
    }
  }

  /** Removes the picture of another selection. The layer's title then has the reason; null if it is shown elsewhere. */
  #fail(layer: number, key: string, weighting: Weighting, why: string | null): void {
    this.#failed.add(layer);
    const layers = this.layers.peek();
    if (why === null && layers.get(layer)?.key === key) return;
    const heads = this.room.store.facts.peek()?.heads ?? 0;
    const [cells, limits] = [new Int8Array(heads).fill(EMPTY), new Array<number>(heads).fill(NaN)];
    const nothing = { key, weighting, side: 1, cells, limits, notes: why === null ? [] : [why], hasFailed: true };
    this.layers.value = new Map(layers).set(layer, nothing);
  }
}

/** The value that is farthest from zero among the cells of a head. */
export function largest({ cells, side, limits }: LayerOfThumbnails, head: number): number {
  const cellsOfHead = cells.subarray(head * side * side, (head + 1) * side * side);
  const limit = limits[head] ?? NaN;
  let most = 0;
  for (const cell of cellsOfHead) if (cell !== EMPTY && Math.abs(cell) > Math.abs(most)) most = cell;
  return most < 0 ? -limit : limit;
}

// A cache of attention maps, so that the map of a head that was shown before is drawn at once. The maps that were least
// recently used are dropped. For a long prompt, each value of a map stands for a block of cells. The single cells of a
// part of the map, or of one token's row or column, are requested when they are shown.

import { untracked } from "@preact/signals-core";
import { Lru } from "../../base/lru";
import { blocks, type Frame, frameOf, type Span } from "../../draw/plane";
import { attention } from "../../state/questions";
import type { Store, Weighting } from "../../state/store";
import type { Position } from "../../state/target";
import { targetKey } from "../../state/target";
import { type Client, float32, RequestFailed, type Result, words16 } from "../../wire/client";
import { halves } from "../../wire/half";
import type { AttentionBuffer, ReadAttention } from "../../wire/protocol.gen";

export type Pool = "peak" | "mean";
export type Maps = Partial<Record<Weighting, Float32Array>>;

/** The direction of a line of a map: what a token reads (a row), or what reads the token (a column). */
export type Direction = "reads" | "read-by";
/** A part of a head's maps. */
export interface Pane extends Frame {
  maps: Maps;
}
/** All maps of a head that were received: row-major, ⌈size / step⌉ values per side. */
export interface Attention extends Pane {
  size: number;
  /**
   * How much the requested destination reads of each source. In a mean over prompts, each prompt may have another
   * destination. Null if the kernel did not send it.
   */
  reads: Float32Array | null;
  /** The source contributions at the requested destination; null if the kernel did not send them. */
  sourceContributions: Float32Array | null;
  /** The requested destination; null if "last" was requested. */
  locked: number | null;
  notes: string[];
}

const MOST_CELLS = 8_000_000; // 32 MB of float32
/** The lane of the token strip's requests (in a lane, a new request replaces the previous one). */
export const READING = "reading";
/** At most this many lines are kept, and at most this many refusals. */
const LINES = 200;

export class AttentionStore {
  readonly #kept = new Lru<string, Attention>(MOST_CELLS, cellsOf);
  readonly #lines = new Lru<string, Maps>(LINES);
  readonly #refused = new Lru<string, RequestFailed>(LINES);
  readonly #pending = new Map<string, { lane: string; answer: Promise<Attention | null> }>();
  /** The last request of each lane. */
  readonly #asked = new Map<string, string>();

  constructor(
    readonly store: Store,
    readonly client: Client,
  ) {}

  /** A key of everything that a head's attention depends on. A watcher that calls this subscribes to all of it. */
  key(head: string): string {
    const { dataKey, prompt, locked, target, pool, settled } = this.store;
    return [dataKey.value, head, prompt.value, locked.value, targetKey(target.value), pool.value, settled.value].join(
      " ",
    );
  }

  /** The kept maps; null if they do not include this weighting. */
  kept(key: string, weighting: Weighting): Attention | null {
    return this.#kept.peek(key)?.maps[weighting] ? (this.#kept.get(key) ?? null) : null;
  }

  has(head: string, weighting: Weighting): boolean {
    return this.#kept.peek(this.key(head))?.maps[weighting] !== undefined;
  }

  /**
   * Requests a head's attention; null if a newer request of the same lane has replaced this one. If another lane
   * already waits for the same attention, both lanes share the reply.
   */
  async read(lane: string, head: string, key: string, weighting: Weighting): Promise<Attention | null> {
    const refused = this.#refused.get(`${key} ${weighting}`);
    if (refused) throw refused;
    // Kept maps are requested again, because the cache may have changed. With a thrifty transport they are returned:
    // there, a change of the cache is noticed after the next cell of the notebook.
    const kept = this.client.transport.thrifty ? this.kept(key, weighting) : null;
    if (kept) return kept;
    const question = `${key} ${weighting}`;
    const under = this.#pending.get(question);
    this.#asked.set(lane, question);
    if (under && under.lane !== lane) {
      this.client.leave(lane); // the lane does not need its previous request any more
      const found = await under.answer;
      // Nothing is found if the other lane has replaced the shared request. This lane then sends its own request,
      // unless it is the token strip's lane or has meanwhile requested something else.
      if (found || lane === READING || this.#asked.get(lane) !== question) return found;
    }
    const answer = this.#read(lane, head, key, weighting);
    const entry = { lane, answer };
    this.#pending.set(question, entry);
    const done = (): void => void (this.#pending.get(question) === entry && this.#pending.delete(question));
    answer.then(done, done);
    return answer;
  }

  async #read(lane: string, head: string, key: string, weighting: Weighting): Promise<Attention | null> {
    const ask = this.#ask(head, weighting);
    const result =
      ask && (await this.client.latest(lane, ask).catch((error: unknown) => this.#refuse(key, weighting, error)));
    return result ? this.#keep(key, attentionOf(result, ask.position), weighting) : null;
  }

  /** Throws the error. If an activation is missing, the error is remembered: a later request would fail, too. */
  #refuse(key: string, weighting: Weighting, error: unknown): never {
    if (error instanceof RequestFailed && error.code === "missing-activation") {
      this.#refused.set(`${key} ${weighting}`, error);
    }
    throw error;
  }

  /**
   * Requests the maps of several heads together, in advance, when no other request is in flight. Returns whether all
   * were answered. If there is no room for a map, it is not kept, so that it replaces no other map.
   */
  async readAhead(heads: string[], weighting: Weighting, signal: AbortSignal): Promise<boolean> {
    const wanted = heads.flatMap((head) => {
      const ask = this.#ask(head, weighting);
      return ask ? [{ key: this.key(head), ask }] : [];
    });
    const results = await this.client.spareAll(
      wanted.map(({ ask }) => ask),
      signal,
    );
    wanted.forEach(({ key, ask }, i) => {
      const result = results[i];
      if (!result) return;
      const fresh = attentionOf(result, ask.position);
      if (!this.#kept.peek(key) && this.#kept.size + cellsOf(fresh) <= MOST_CELLS) this.#keep(key, fresh, weighting);
    });
    return results.length > 0 && results.every((result) => result !== null);
  }

  /** Requests a part of the maps; null if a newer request of the same lane has replaced this one. */
  async part(lane: string, head: string, weighting: Weighting, rows: Span, columns: Span): Promise<Pane | null> {
    const ask = this.#ask(head, weighting, { rows, columns });
    const result = ask && (await this.client.latest(lane, ask));
    return result ? paneOf(result) : null;
  }

  /** Requests a token's line, cell by cell; null if a newer request of the same lane has replaced this one. */
  async line(
    lane: string,
    head: string,
    weighting: Weighting,
    direction: Direction,
    token: number,
  ): Promise<Maps | null> {
    const key = this.#lineKey(head, weighting, direction, token);
    const kept = this.#lines.get(key);
    if (kept) return kept;
    const span = { start: token, stop: token + 1 };
    const ask = this.#ask(head, weighting, direction === "reads" ? { rows: span } : { columns: span });
    const result = ask && (await this.client.latest(lane, ask));
    if (!result) return null;
    const { maps } = paneOf(result);
    this.#lines.set(key, maps);
    return maps;
  }

  /** A token's line, if it is kept already; otherwise null. */
  keptLine(head: string, weighting: Weighting, direction: Direction, token: number): Maps | null {
    return this.#lines.get(this.#lineKey(head, weighting, direction, token)) ?? null;
  }

  #lineKey(head: string, weighting: Weighting, direction: Direction, token: number): string {
    return `${this.key(head)} ${weighting} ${direction} ${token}`;
  }

  #ask(head: string, weighting: Weighting, part: { rows?: Span; columns?: Span } = {}): ReadAttention | null {
    const { pool, settled, shown } = this.store;
    if (!settled.peek()) return null;
    const coarse = pool.peek() === "mean" ? { pool: "mean" as const } : {};
    return untracked(() => attention(shown, head, weighting, { ...coarse, ...part }));
  }

  /** Keeps new maps. Earlier maps of other weightings stay, but a requested map that did not come is removed. */
  #keep(key: string, fresh: Attention, asked: Weighting): Attention {
    const before = this.#kept.peek(key);
    const kept = before?.size === fresh.size ? { ...fresh, maps: { ...before.maps, ...fresh.maps } } : fresh;
    if (!fresh.maps[asked]) delete kept.maps[asked];
    this.#kept.set(key, kept);
    return kept;
  }
}

function paneOf({ reply, buffers }: Result<"attention">): Pane {
  const pane: Pane = { ...frameOf(reply), maps: {} };
  reply.parts.forEach((part, i) => {
    if (part.what !== "reads" && part.what !== "brings") pane.maps[part.what] = unpacked(part, buffers[i], pane);
  });
  return pane;
}

function attentionOf(result: Result<"attention">, position: Position = "last"): Attention {
  const { parts, positions, notes } = result.reply;
  const row = (name: "reads" | "brings"): Float32Array | null => {
    const at = parts.findIndex(({ what }) => what === name);
    return at < 0 ? null : float32(result.buffers[at]);
  };
  return {
    ...paneOf(result),
    size: positions,
    reads: row("reads"),
    sourceContributions: row("brings"),
    locked: position === "last" ? null : position,
    notes,
  };
}

/** Why a requested map did not come. */
export function whyMissing({ notes }: Attention): string {
  return notes.length > 0 ? notes.join(" ") : "The kernel did not send this map.";
}

function cellsOf({ maps }: Attention): number {
  return Object.values(maps).reduce((sum, map) => sum + map.length, 0);
}

/** The values of a map from its buffer. If the map was sent as a triangle, the other cells are zero. */
export function unpacked(
  { scale = 1, wide, triangle }: AttentionBuffer,
  buffer: DataView | undefined,
  { rows, columns, step }: Frame,
): Float32Array {
  const values = wide ? float32(buffer) : halves(words16(buffer));
  if (scale !== 1) for (let i = 0; i < values.length; i += 1) values[i] = (values[i] ?? 0) * scale;
  if (!triangle) return values;
  const side = blocks(rows, step);
  const square = new Float32Array(side * blocks(columns, step));
  for (let q = 0, from = 0; q < side; q += 1) {
    square.set(values.subarray(from, from + q + 1), q * side);
    from += q + 1;
  }
  return square;
}

// Attention maps already asked for, so that pinning, unpinning and going back draw at once. Of a long prompt a map comes
// in blocks of cells; a part of it, or what one token reads, cell by cell when it is looked at.

import { parseHead } from "../../base/format";
import { Lru } from "../../base/lru";
import { blocks, type Frame, frameOf, type Span } from "../../draw/plane";
import type { Store, Weighting } from "../../state/store";
import type { Position } from "../../state/target";
import { targetKey } from "../../state/target";
import { type Client, float32, RequestFailed, type Result, words16 } from "../../wire/client";
import { halves } from "../../wire/half";
import type { AttentionBuffer, ReadAttention } from "../../wire/protocol.gen";

export type Pool = "peak" | "mean";
export type Maps = Partial<Record<Weighting, Float32Array>>;

/** What a token reads, or what reads it. */
export type Direction = "reads" | "read-by";
/** A part of a head's maps. */
export interface Pane extends Frame {
  maps: Maps;
}
/** All of them: row-major, ⌈size / step⌉ a side, those that are there. */
export interface Attention extends Pane {
  size: number;
  /** How much of each source the destination that was asked for reads; in the mean over prompts, each prompt's own. */
  reads: Float32Array | null;
  /** What each source brings there. */
  brings: Float32Array | null;
  /** That destination, where it was locked; null is the last. */
  locked: number | null;
  notes: string[];
}

const MOST_CELLS = 8_000_000; // 32 MB of float32
/** The lane of what the strip shows: it follows the focus, as the preview does. */
export const READING = "reading";
/** What so many tokens read is kept. */
const LINES = 200;

export class AttentionStore {
  readonly #kept = new Lru<string, Attention>(MOST_CELLS, cellsOf);
  readonly #lines = new Lru<string, Maps>(LINES);
  readonly #refused = new Lru<string, RequestFailed>(LINES);
  readonly #pending = new Map<string, { lane: string; answer: Promise<Attention | null> }>();
  /** What each lane asked last. */
  readonly #asked = new Map<string, string>();

  constructor(
    readonly store: Store,
    readonly client: Client,
  ) {}

  /** Identifies what a head's attention depends on; reading it in an effect subscribes to all of it. */
  key(head: string): string {
    const { source, prompt, locked, target, pool, settled } = this.store;
    return [source.value, head, prompt.value, locked.value, targetKey(target.value), pool.value, settled.value].join(
      " ",
    );
  }

  /** What is there with this weighting. */
  kept(key: string, weighting: Weighting): Attention | null {
    return this.#kept.peek(key)?.maps[weighting] ? (this.#kept.get(key) ?? null) : null;
  }

  has(head: string, weighting: Weighting): boolean {
    return this.#kept.peek(this.key(head))?.maps[weighting] !== undefined;
  }

  /**
   * Null when overtaken by a newer request of the same lane. Who asks for what another lane is waiting for waits with
   * it.
   */
  async read(lane: string, head: string, key: string, weighting: Weighting): Promise<Attention | null> {
    const refused = this.#refused.get(`${key} ${weighting}`);
    if (refused) throw refused;
    // Where each request is seen, what is there is not asked for again: whether the cache has changed is seen after
    // each cell.
    const kept = this.client.transport.thrifty ? this.kept(key, weighting) : null;
    if (kept) return kept;
    const question = `${key} ${weighting}`;
    const under = this.#pending.get(question);
    this.#asked.set(lane, question);
    if (under && under.lane !== lane) {
      this.client.leave(lane); // what it waited for before is overtaken
      const found = await under.answer;
      // Overtaken: what is in focus now has been asked for; and this lane may itself have turned to something else.
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

  /** What was not cached will not be there a moment later, either: it is not asked for again. */
  #refuse(key: string, weighting: Weighting, error: unknown): never {
    if (error instanceof RequestFailed && error.code === "missing-activation") {
      this.#refused.set(`${key} ${weighting}`, error);
    }
    throw error;
  }

  /**
   * Asks ahead of need, in one go, once nothing else is asked; whether it came. It drives nothing out: where there is
   * no more room, it is not kept.
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

  /** A part of the maps. */
  async part(lane: string, head: string, weighting: Weighting, rows: Span, columns: Span): Promise<Pane | null> {
    const ask = this.#ask(head, weighting, { rows, columns });
    const result = ask && (await this.client.latest(lane, ask));
    return result ? paneOf(result) : null;
  }

  /** What a token reads, or what reads it, cell by cell; null when overtaken. `there` may be subscribed to. */
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

  /** The same where it is there already. */
  keptLine(head: string, weighting: Weighting, direction: Direction, token: number): Maps | null {
    return this.#lines.get(this.#lineKey(head, weighting, direction, token)) ?? null;
  }

  #lineKey(head: string, weighting: Weighting, direction: Direction, token: number): string {
    return `${this.key(head)} ${weighting} ${direction} ${token}`;
  }

  #ask(head: string, weighting: Weighting, part: { rows?: Span; columns?: Span } = {}): ReadAttention | null {
    const at = parseHead(head);
    const { target, prompt, chosenPosition, pool, settled } = this.store;
    if (!at || !settled.peek()) return null;
    const coarse = pool.peek() === "mean" ? { pool: "mean" as const } : {};
    return {
      kind: "attention",
      ...at,
      target: target.peek(),
      prompt: prompt.peek(),
      position: chosenPosition.peek(),
      weighting,
      ...coarse,
      ...part,
    };
  }

  /** Maps of other weightings that were there before stay; one that was asked for and did not come is no more. */
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
    brings: row("brings"),
    locked: position === "last" ? null : position,
    notes,
  };
}

/** Why a map that was asked for did not come. */
export function whyMissing({ notes }: Attention): string {
  return notes.length > 0 ? notes.join(" ") : "The kernel sent no such map.";
}

function cellsOf({ maps }: Attention): number {
  return Object.values(maps).reduce((sum, map) => sum + map.length, 0);
}

/** A map as it travelled → its figures; above a triangle stand zeros. */
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

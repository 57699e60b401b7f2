// The cells of the token lens, requested in tiles of a few points and some positions. Only visible tiles are requested,
// a few at a time, the deepest first; a tile that is scrolled out of view before its turn is not requested.
import { signal as state, untracked } from "@preact/signals-core";
import { Lru } from "../../base/lru";
import { isOutdated } from "../../state/loader";
import { TALL, type Tile, tileAt, WIDE } from "../../state/questions";
import type { Store } from "../../state/store";
import type { Client } from "../../wire/client";
import type { LensCell, ReadTokenLens } from "../../wire/protocol.gen";

/** How many tiles are requested at a time; how many are kept. */
const LANES = 2;
const MOST = 600;

export interface Question {
  /** Identifies the selection. */
  key: string;
  /** All points of the lens, from the first. */
  points: string[];
  positions: number;
  ask: (tile: Tile) => ReadTokenLens;
}
interface Kept {
  key: string;
  start: number;
  /** By point, then position. */
  cells: Map<string, LensCell[]>;
}
export interface Window {
  rows: [from: number, to: number];
  columns: [from: number, to: number];
}

export class LensTiles {
  /** Counts the received tiles. */
  readonly version = state(0);
  readonly trouble = state<string | null>(null);
  readonly waiting = state(false);
  notes: string[] = [];
  #question: Question | null = null;
  #wanted: string[] = [];
  #busy = new Map<number, string>();
  readonly #tiles = new Lru<string, Kept>(MOST);

  constructor(
    readonly store: Store,
    readonly client: Client,
    readonly signal: AbortSignal,
  ) {}

  /** Sets the selection and the visible window; null if nothing is visible. */
  look(question: Question | null, window: Window | null): void {
    this.#question = question;
    this.#wanted = question && window ? tilesIn(question, window) : [];
    this.#pump();
  }

  /** A cell, and whether it belongs to the present selection; an old cell stays until its new tile has come. */
  cell(points: string[], row: number, column: number): { cell: LensCell; fresh: boolean } | null {
    const point = points[row];
    if (point === undefined) return null;
    const tile = this.#tiles.peek(name(points, row, column));
    const cell = tile?.cells.get(point)?.[column - tile.start];
    return tile && cell ? { cell, fresh: tile.key === this.#question?.key } : null;
  }

  #missing(): string[] {
    return this.#wanted.filter((id) => this.#tiles.peek(id)?.key !== this.#question?.key);
  }

  #pump(): void {
    const missing = this.#missing();
    if (this.#question && missing.length === 0) this.trouble.value = null; // all visible tiles are kept from before
    untracked(() => (this.waiting.value = missing.length > 0 && this.trouble.value === null));
    const taken = new Set(this.#busy.values());
    for (let lane = 0; lane < LANES; lane += 1) {
      if (this.#busy.has(lane)) continue;
      const id = missing.find((one) => !taken.has(`${one} ${this.#question?.key}`));
      if (id === undefined || !this.#question) return;
      taken.add(`${id} ${this.#question.key}`);
      void this.#ask(lane, id, this.#question);
    }
  }

  async #ask(lane: number, id: string, question: Question): Promise<void> {
    this.#busy.set(lane, `${id} ${question.key}`);
    let refused = false;
    try {
      const result = await this.client.latest(`token lens ${lane}`, question.ask(extent(question, id)));
      if (result && !this.signal.aborted && question.key === this.#question?.key) {
        this.#tiles.set(id, {
          key: question.key,
          start: result.reply.start,
          cells: new Map(result.reply.points.map((point, i) => [point, result.reply.cells[i] ?? []])),
        });
        this.notes = result.reply.notes;
        this.trouble.value = null;
        this.version.value += 1;
      }
    } catch (error) {
      refused = question.key === this.#question?.key;
      if (refused && !this.signal.aborted && !isOutdated(error, this.store))
        this.trouble.value = error instanceof Error ? error.message : String(error);
    } finally {
      this.#busy.delete(lane);
      // After a refusal, nothing is requested until the window or the selection changes.
      if (refused) untracked(() => (this.waiting.value = false));
      else if (!this.signal.aborted) this.#pump();
    }
  }
}

/**
 * The id of a cell's tile. It has the number of points, so that tiles with and without mid points are kept separately.
 */
function name(points: string[], row: number, column: number): string {
  return `${points.length} ${Math.floor(row / TALL)} ${Math.floor(column / WIDE)}`;
}

/** The tiles that a window touches: the deepest first, and at one depth the last positions first. */
export function tilesIn({ points }: Pick<Question, "points">, { rows, columns }: Window): string[] {
  const all: string[] = [];
  for (let y = Math.floor((rows[1] - 1) / TALL); y >= Math.floor(rows[0] / TALL); y -= 1)
    for (let x = Math.floor((columns[1] - 1) / WIDE); x >= Math.floor(columns[0] / WIDE); x -= 1)
      all.push(name(points, y * TALL, x * WIDE));
  return all;
}

export function extent({ points, positions }: Pick<Question, "points" | "positions">, id: string): Tile {
  const [, row = 0, column = 0] = id.split(" ").map(Number);
  return tileAt(points, positions, row, column);
}

// The token lens' cells as they come from the kernel: in tiles of a few points and some positions. Only tiles in view
// are asked for, a few at a time, the deepest first; what is scrolled out of view before its turn is never asked for.
import { signal as state, untracked } from "@preact/signals-core";
import { Lru } from "../../base/lru";
import { isOutdated } from "../../state/loader";
import type { Store } from "../../state/store";
import type { Client } from "../../wire/client";
import type { LensCell, ReadTokenLens } from "../../wire/protocol.gen";

/** Points and positions of a tile; how many are asked for at a time; how many are kept. */
export const TALL = 4;
export const WIDE = 32;
const LANES = 2;
const MOST = 600;

export interface Question {
  /** Tells one selection from another. */
  key: string;
  /** All points of the lens, from the first. */
  points: string[];
  positions: number;
  ask: Omit<ReadTokenLens, "kind" | "points" | "start" | "stop">;
}
interface Tile {
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
  /** Counts the tiles that came. */
  readonly version = state(0);
  readonly trouble = state<string | null>(null);
  readonly waiting = state(false);
  notes: string[] = [];
  #question: Question | null = null;
  #wanted: string[] = [];
  #busy = new Map<number, string>();
  readonly #tiles = new Lru<string, Tile>(MOST);

  constructor(
    readonly store: Store,
    readonly client: Client,
    readonly signal: AbortSignal,
  ) {}

  /** What is in view, of this selection. Null: nothing is. */
  look(question: Question | null, window: Window | null): void {
    this.#question = question;
    this.#wanted = question && window ? tilesIn(question, window) : [];
    this.#pump();
  }

  /** A cell, and whether it is the present selection's; the last picture's stays until then. */
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
    if (this.#question && missing.length === 0) this.trouble.value = null; // all of it is there from before
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
    const { points, start, stop } = extent(question, id);
    this.#busy.set(lane, `${id} ${question.key}`);
    let refused = false;
    try {
      const result = await this.client.latest(`token lens ${lane}`, {
        ...question.ask,
        kind: "token-lens",
        points,
        start,
        stop,
      });
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
      // What was refused is not asked for again until something else is in view or selected.
      if (refused) untracked(() => (this.waiting.value = false));
      else if (!this.signal.aborted) this.#pump();
    }
  }
}

/** Tiles stand on the grid of all points, so that those with mid and those without share nothing and hide nothing. */
function name(points: string[], row: number, column: number): string {
  return `${points.length} ${Math.floor(row / TALL)} ${Math.floor(column / WIDE)}`;
}

/** The tiles that a window touches: the deepest first, of those at one depth the last positions first. */
export function tilesIn({ points }: Question, { rows, columns }: Window): string[] {
  const all: string[] = [];
  for (let y = Math.floor((rows[1] - 1) / TALL); y >= Math.floor(rows[0] / TALL); y -= 1)
    for (let x = Math.floor((columns[1] - 1) / WIDE); x >= Math.floor(columns[0] / WIDE); x -= 1)
      all.push(name(points, y * TALL, x * WIDE));
  return all;
}

export function extent(
  question: Pick<Question, "points" | "positions">,
  id: string,
): { points: string[]; start: number; stop: number } {
  const [, y = 0, x = 0] = id.split(" ").map(Number);
  const start = x * WIDE;
  return {
    points: question.points.slice(y * TALL, (y + 1) * TALL),
    start,
    stop: Math.min(question.positions, start + WIDE),
  };
}

// The cells of the token lens. They are requested in tiles of a few points and some positions, the deepest tiles first,
// and only a few tiles at a time. Only visible tiles are requested.
import { signal as state, untracked } from "@preact/signals-core";
import { Lru } from "../../base/lru";
import { isOutdated } from "../../state/loader";
import { TALL, type Tile, tileAt, WIDE } from "../../state/questions";
import type { Store } from "../../state/store";
import type { Client } from "../../wire/client";
import type {
  CompareTokenLens,
  LensCell,
  ReadTokenLens,
  TokenLensComparisonReply,
  TokenLensReply,
} from "../../wire/protocol.gen";
import type { BothCells } from "./lens-runs";

/** At most MAX_REQUESTS tiles are requested at a time, and at most MAX_TILES are kept. */
const MAX_REQUESTS = 2;
const MAX_TILES = 600;

/** A selection for which cells are requested. */
export interface LensSelection {
  /** Identifies the selection. */
  key: string;
  /** All points of the lens, from the first. */
  points: string[];
  positions: number;
  ask: (tile: Tile) => ReadTokenLens | CompareTokenLens;
}
interface ReceivedTile {
  key: string;
  start: number;
  /** The cells of each point, in the order of their positions, from `start`. */
  cells: Map<string, LensCell[]>;
  /** The same cells in the compared run; null if there is one run. */
  second: Map<string, (LensCell | null)[]> | null;
  /** The positions of the cells in the compared run. */
  beside: (number | null)[];
}
export interface VisibleCells {
  rows: [from: number, to: number];
  columns: [from: number, to: number];
}

export class LensTiles {
  /** The number of tiles that were received. A watcher that reads it runs again for each tile. */
  readonly version = state(0);
  readonly trouble = state<string | null>(null);
  readonly waiting = state(false);
  notes: string[] = [];
  #selection: LensSelection | null = null;
  /** The ids of the visible tiles. */
  #visible: string[] = [];
  /** Whether a tile was refused. Then nothing is requested until the visible cells or the selection change. */
  #isRefused = false;
  /** For each lane, the tile that is requested at present. */
  readonly #requests = new Map<number, string>();
  readonly #tiles = new Lru<string, ReceivedTile>(MAX_TILES);

  constructor(
    readonly store: Store,
    readonly client: Client,
    readonly signal: AbortSignal,
  ) {}

  /** Requests the visible cells for a selection. If there is no selection or no visible cell, requests nothing. */
  request(selection: LensSelection | null, visible: VisibleCells | null): void {
    this.#selection = selection;
    this.#visible = selection && visible ? tilesIn(selection, visible) : [];
    this.#isRefused = false;
    this.#requestMissing();
  }

  /** A cell, and whether it belongs to the present selection. An older cell stays until its tile arrives again. */
  cell(points: string[], row: number, column: number): (BothCells & { isCurrent: boolean }) | null {
    const point = points[row];
    if (point === undefined) return null;
    const tile = this.#tiles.peek(tileId(points, row, column));
    const cell = tile?.cells.get(point)?.[column - tile.start];
    if (!tile || !cell) return null;
    const isCurrent = tile.key === this.#selection?.key;
    if (tile.second === null) return { first: cell, isCurrent };
    const at = column - tile.start;
    return { first: cell, second: tile.second.get(point)?.[at] ?? null, beside: tile.beside[at] ?? null, isCurrent };
  }

  #missing(): string[] {
    return this.#visible.filter((id) => this.#tiles.peek(id)?.key !== this.#selection?.key);
  }

  #requestMissing(): void {
    const missing = this.#missing();
    if (this.#selection && missing.length === 0) this.trouble.value = null; // all visible tiles were received earlier
    const isWaiting = missing.length > 0 && !this.#isRefused;
    untracked(() => (this.waiting.value = isWaiting && this.trouble.value === null));
    if (!isWaiting) return;
    const requested = new Set(this.#requests.values());
    for (let lane = 0; lane < MAX_REQUESTS; lane += 1) {
      if (this.#requests.has(lane)) continue;
      const id = missing.find((tile) => !requested.has(`${tile} ${this.#selection?.key}`));
      if (id === undefined || !this.#selection) return;
      requested.add(`${id} ${this.#selection.key}`);
      void this.#ask(lane, id, this.#selection);
    }
  }

  async #ask(lane: number, id: string, selection: LensSelection): Promise<void> {
    this.#requests.set(lane, `${id} ${selection.key}`);
    try {
      const result = await this.client.latest<"token-lens" | "compare-token-lens">(
        `token lens ${lane}`,
        selection.ask(extent(selection, id)),
      );
      if (result && !this.signal.aborted && selection.key === this.#selection?.key) {
        this.#tiles.set(id, { key: selection.key, ...received(result.reply) });
        this.notes = result.reply.notes;
        if (!this.#isRefused) this.trouble.value = null;
        this.version.value += 1;
      }
    } catch (error) {
      if (selection.key === this.#selection?.key) {
        this.#isRefused = true;
        if (!this.signal.aborted && !isOutdated(error, this.store))
          this.trouble.value = error instanceof Error ? error.message : String(error);
      }
    } finally {
      this.#requests.delete(lane);
      if (!this.signal.aborted) this.#requestMissing();
    }
  }
}

function received(reply: TokenLensReply | TokenLensComparisonReply): Omit<ReceivedTile, "key"> {
  const { points, start } = reply;
  const byPoint = <T>(cells: T[][]): Map<string, T[]> => new Map(points.map((point, i) => [point, cells[i] ?? []]));
  return reply.kind === "token-lens"
    ? { start, cells: byPoint(reply.cells), second: null, beside: [] }
    : { start, cells: byPoint(reply.first), second: byPoint(reply.second), beside: reply.beside };
}

/**
 * The id of a cell's tile. It contains the number of points, so that tiles with and without mid points have different
 * ids.
 */
function tileId(points: string[], row: number, column: number): string {
  return `${points.length} ${Math.floor(row / TALL)} ${Math.floor(column / WIDE)}`;
}

/** The ids of the tiles that contain these cells: the deepest first, and at the same depth the last positions first. */
export function tilesIn({ points }: Pick<LensSelection, "points">, { rows, columns }: VisibleCells): string[] {
  const all: string[] = [];
  for (let y = Math.floor((rows[1] - 1) / TALL); y >= Math.floor(rows[0] / TALL); y -= 1)
    for (let x = Math.floor((columns[1] - 1) / WIDE); x >= Math.floor(columns[0] / WIDE); x -= 1)
      all.push(tileId(points, y * TALL, x * WIDE));
  return all;
}

/** The points and positions of a tile. */
export function extent({ points, positions }: Pick<LensSelection, "points" | "positions">, id: string): Tile {
  const [, row = 0, column = 0] = id.split(" ").map(Number);
  return tileAt(points, positions, row, column);
}

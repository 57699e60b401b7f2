// The list of caches of one kernel. It is updated when a cell has ended.
import { batch, signal as state, untracked } from "@preact/signals-core";
import { watch } from "../base/lifetime";
import { Client, RequestFailed } from "../wire/client";
import type { CacheRow } from "../wire/protocol.gen";
import type { Link } from "./link";

/** Whether two lists are of the same caches, in the same states, with the same names. */
function areSame(some: CacheRow[], others: CacheRow[]): boolean {
  const keys = (rows: CacheRow[]): string => JSON.stringify(rows.map(({ ref, names }) => [ref, names]));
  return keys(some) === keys(others);
}

export class Caches {
  readonly rows = state<CacheRow[]>([]);
  readonly notes = state<string[]>([]);
  /** The id of the kernel run that listed the rows; empty before the first list. */
  readonly kernel = state("");
  /** The time when the rows were listed, in milliseconds. */
  readonly listed = state(0);
  readonly trouble = state<string | null>(null);
  /** Whether the kernel has listed the rows since it was last attached. Otherwise they may be from another kernel. */
  readonly fresh = state(false);
  readonly #client: Client;

  constructor(
    readonly link: Link,
    signal: AbortSignal,
  ) {
    this.#client = new Client(link, signal);
    link.onLost?.(() => (this.fresh.value = false), signal);
    watch(signal, () => {
      void link.cells.value;
      if (link.state.value.kind === "ready") untracked(() => void this.refresh());
    });
  }

  /**
   * Lists the caches again. All calls during a request cause only one more request.
   *
   * @param since Continues a series of lists (`ListCaches`). If no cache has changed, the rows stay as they are.
   */
  async refresh(since = 0): Promise<void> {
    if (this.link.state.peek().kind !== "ready") return;
    try {
      const result = await this.#client.latest("caches", { kind: "caches", since });
      if (!result) return;
      const { reply } = result;
      batch(() => {
        this.kernel.value = reply.kernel;
        this.notes.value = reply.notes;
        this.trouble.value = null;
        this.fresh.value = true;
        if (since && areSame(reply.caches, this.rows.peek())) return;
        this.listed.value = Date.now();
        this.rows.value = reply.caches;
      });
      if (reply.unread) void this.refresh(reply.since);
    } catch (error) {
      if (error instanceof RequestFailed && (error.code === "lost" || error.code === "closed")) return;
      this.trouble.value = error instanceof Error ? error.message : String(error);
    }
  }

  find(id: string): CacheRow | undefined {
    return this.rows.value.find((row) => row.ref.id === id);
  }

  /** The cache that has this name. A cache may have several names. */
  named(name: string): CacheRow | undefined {
    return this.rows.value.find((row) => row.names.includes(name));
  }
}

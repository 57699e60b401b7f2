/** Remembers the open view of each notebook across a reload. */

import type { IStateDB } from "@jupyterlab/statedb";
import type { ReadonlyPartialJSONObject } from "@lumino/coreutils";
import { asSelection, type Opened } from "@residscope/widgets";

const KEY = "@residscope/jupyterlab:sidebar";
/** The most notebooks that are remembered; the latest are kept. */
const MOST = 50;

export class Memory {
  readonly #all = new Map<string, Opened>();
  readonly #loaded: Promise<void>;

  constructor(readonly db: IStateDB | null) {
    // Must not be awaited in a plugin's activation: the database opens only when all plugins are active.
    this.#loaded = this.#load();
  }

  async get(path: string): Promise<Opened | null> {
    await this.#loaded;
    return this.#all.get(path) ?? null;
  }

  set(opened: Opened): void {
    this.#all.delete(opened.path); // so that it becomes the latest
    this.#all.set(opened.path, opened);
    const latest = [...this.#all.values()].slice(-MOST);
    void this.db?.save(KEY, Object.fromEntries(latest.map((one) => [one.path, asArgs(one)])));
  }

  /** Follows a renamed notebook. */
  move(from: string, to: string): void {
    const opened = this.#all.get(from);
    if (!opened) return;
    this.#all.delete(from);
    this.set({ ...opened, path: to });
  }

  async #load(): Promise<void> {
    const saved = (await this.db?.fetch(KEY)) as Record<string, ReadonlyPartialJSONObject> | undefined;
    for (const args of Object.values(saved ?? {})) {
      const opened = fromArgs(args);
      if (opened && !this.#all.has(opened.path)) this.#all.set(opened.path, opened);
    }
  }
}

/** A view as a command's arguments; the database stores the same. */
export function asArgs({ path, name, selection }: Opened): ReadonlyPartialJSONObject {
  return { path, name, selection: selection as unknown as ReadonlyPartialJSONObject };
}

export function fromArgs({ path, name, selection }: ReadonlyPartialJSONObject): Opened | null {
  if (typeof path !== "string" || typeof name !== "string") return null;
  return { path, name, selection: asSelection(selection) };
}

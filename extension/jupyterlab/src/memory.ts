/** Remembers the open view of each notebook across a reload. */

import type { IStateDB } from "@jupyterlab/statedb";
import type { ReadonlyPartialJSONObject } from "@lumino/coreutils";
import { Memory, type Opened } from "@residscope/widgets";

const KEY = "@residscope/jupyterlab:sidebar";

/** `loaded` is not to be awaited in a plugin's activation: the database opens when all are active. */
export function memoryIn(db: IStateDB | null): { memory: Memory; loaded: Promise<void> } {
  const memory = new Memory((all) => void db?.save(KEY, all.map(asArgs)));
  const load = async (): Promise<void> => memory.load(await db?.fetch(KEY));
  return { memory, loaded: load() };
}

/** A view as a command's arguments; the database stores the same. */
export function asArgs({ path, name, selection }: Opened): ReadonlyPartialJSONObject {
  return { path, name, selection: selection as unknown as ReadonlyPartialJSONObject };
}

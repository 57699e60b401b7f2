/** Remembers the open view of each notebook across a reload. */

import type { IStateDB } from "@jupyterlab/statedb";
import type { ReadonlyPartialJSONObject } from "@lumino/coreutils";
import { Memory, type Opened } from "@residscope/widgets";

const KEY = "@residscope/jupyterlab:sidebar";

/**
 * Do not await `loaded` while a plugin is activated: the database opens only after all plugins are active. If the
 * database fails, nothing is remembered across a reload.
 */
export function memoryIn(db: IStateDB | null): { memory: Memory; loaded: Promise<void> } {
  const memory = new Memory((all) => void db?.save(KEY, all.map(asArgs)).catch(() => undefined));
  const load = async (): Promise<void> => memory.load(await db?.fetch(KEY).catch(() => undefined));
  return { memory, loaded: load() };
}

/** A view in the form of a command's arguments. The database stores it in the same form. */
export function asArgs({ path, name, selection }: Opened): ReadonlyPartialJSONObject {
  return { path, name, selection: selection as unknown as ReadonlyPartialJSONObject };
}

/** What was looked at in each notebook, in JupyterLab's database. */

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

/** As a command's arguments, and in the database. */
export function asArgs({ path, name, selection }: Opened): ReadonlyPartialJSONObject {
  return { path, name, selection: selection as unknown as ReadonlyPartialJSONObject };
}

/** Remembers the open view of each notebook across a reload of the window. Stored data is not trusted. */

import { asOpened as asWritten, Memory, type Opened } from "@residscope/widgets/node";
import { type Memento, Uri } from "vscode";

const KEY = "residscope.opened";

export function memoryIn(state: Memento): Memory {
  const memory = new Memory((all) => void state.update(KEY, all), asOpened);
  memory.load(state.get<unknown>(KEY));
  return memory;
}

/** A stored view; null if it cannot be read. */
export function asOpened(stored: unknown): Opened | null {
  const opened = asWritten(stored);
  return opened && isAddress(opened.path) ? opened : null;
}

function isAddress(path: string): boolean {
  try {
    return Uri.parse(path, true).path !== "";
  } catch {
    return false;
  }
}

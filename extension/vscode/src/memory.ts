/** Remembers the open view of each notebook across a reload of the window. Stored data is not trusted. */

import { asOpened as asAnyOpened, Memory, type Opened } from "@residscope/widgets/node";
import { type Memento, Uri } from "vscode";

const KEY = "residscope.opened";

export function memoryIn(state: Memento): Memory {
  const memory = new Memory((all) => void state.update(KEY, all).then(undefined, () => undefined), asOpened);
  memory.load(state.get<unknown>(KEY));
  return memory;
}

/** A stored view; null if the data is not a view, or its path is not a URI. */
export function asOpened(stored: unknown): Opened | null {
  const opened = asAnyOpened(stored);
  return opened && isUri(opened.path) ? opened : null;
}

function isUri(path: string): boolean {
  try {
    return Uri.parse(path, true).path !== "";
  } catch {
    return false;
  }
}

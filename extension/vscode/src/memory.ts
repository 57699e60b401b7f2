/** What was looked at in each notebook, over a reload of the window. What was stored may be anything. */

import { asOpened as asWritten, Memory, type Opened } from "@residscope/widgets/node";
import { type Memento, Uri } from "vscode";

const KEY = "residscope.opened";

export function memoryIn(state: Memento): Memory {
  const memory = new Memory((all) => void state.update(KEY, all), asOpened);
  memory.load(state.get<unknown>(KEY));
  return memory;
}

/** What was looked at, as it was stored; null where that cannot be read any more. */
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

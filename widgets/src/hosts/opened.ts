// What a view is of, and what is selected in it: enough to open it again, after a reload too.
import { asSelection, type Selection } from "../state/selection";

export interface Opened {
  path: string;
  name: string;
  selection: Selection | null;
}

/** What was stored, read back; null where nothing can be opened by it. It may come from another version. */
export function asOpened(stored: unknown): Opened | null {
  const { path, name, selection } = (stored ?? {}) as Record<keyof Opened, unknown>;
  if (typeof path !== "string" || typeof name !== "string") return null;
  return { path, name, selection: asSelection(selection) };
}

// The cache and the selection of a view: the data to open the view again, for example after a reload.
import { asSelection, type Selection } from "../state/selection";

export interface Opened {
  /** The path of the notebook or console. */
  path: string;
  /** The name of the cache's variable. */
  name: string;
  selection: Selection | null;
}

/** A stored view; null if the data is not a view. Another version of Residscope may have stored it. */
export function asOpened(stored: unknown): Opened | null {
  const { path, name, selection } = (stored ?? {}) as Record<keyof Opened, unknown>;
  if (typeof path !== "string" || typeof name !== "string") return null;
  return { path, name, selection: asSelection(selection) };
}

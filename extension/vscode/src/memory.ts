/** Remembers the open view of each notebook across a reload of the window. Stored data is not trusted. */

import type { Opened } from "@residscope/widgets";
import { asSelection } from "@residscope/widgets/node";
import { type Memento, Uri } from "vscode";

const KEY = "residscope.opened";
/** The most notebooks that are remembered; the latest are kept. */
const MOST = 50;

export class Memory {
  constructor(readonly state: Memento) {}

  get all(): Opened[] {
    const stored = this.state.get<unknown>(KEY);
    if (!Array.isArray(stored)) return [];
    return stored
      .slice(-MOST)
      .map(asOpened)
      .filter((opened) => opened !== null);
  }

  async set(opened: Opened): Promise<void> {
    const others = this.all.filter(({ path }) => path !== opened.path);
    await this.state.update(KEY, [...others, opened].slice(-MOST));
  }

  /** Follows a renamed notebook. */
  move(from: string, to: string): void {
    const opened = this.all.find(({ path }) => path === from);
    if (!opened) return;
    void this.state.update(KEY, [
      ...this.all.filter(({ path }) => path !== from && path !== to),
      { ...opened, path: to },
    ]);
  }
}

/** A stored view; null if it cannot be read. */
export function asOpened(stored: unknown): Opened | null {
  const { path, name, selection } = (stored ?? {}) as Record<keyof Opened, unknown>;
  if (typeof path !== "string" || typeof name !== "string" || !isAddress(path)) return null;
  return { path, name, selection: asSelection(selection) };
}

function isAddress(path: string): boolean {
  try {
    return Uri.parse(path, true).path !== "";
  } catch {
    return false;
  }
}

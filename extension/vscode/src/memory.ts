/** What was looked at in each notebook, over a reload of the window. What was stored may be anything. */

import type { Opened } from "@residscope/widgets";
import { asSelection } from "@residscope/widgets/node";
import { type Memento, Uri } from "vscode";

const KEY = "residscope.opened";
/** So many notebooks are remembered, the latest. */
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

  /** A notebook has another name. */
  move(from: string, to: string): void {
    const opened = this.all.find(({ path }) => path === from);
    if (!opened) return;
    void this.state.update(KEY, [
      ...this.all.filter(({ path }) => path !== from && path !== to),
      { ...opened, path: to },
    ]);
  }
}

/** What was looked at, as it was stored; null where that cannot be read any more. */
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

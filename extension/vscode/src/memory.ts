/** What was looked at in each notebook, over a reload of the window. */

import type { Opened } from "@residscope/widgets";
import type { Memento } from "vscode";

const KEY = "residscope.opened";
/** So many notebooks are remembered, the latest. */
const MOST = 50;

export class Memory {
  constructor(readonly state: Memento) {}

  get all(): Opened[] {
    return this.state.get<Opened[]>(KEY, []);
  }

  async set(opened: Opened): Promise<void> {
    const others = this.all.filter(({ path }) => path !== opened.path);
    await this.state.update(KEY, [...others, opened].slice(-MOST));
  }
}

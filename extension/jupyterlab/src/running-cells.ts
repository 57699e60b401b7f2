/** Finds out from a kernel's messages whether a cell is running. */

import { signal as state } from "@residscope/widgets";

export class RunningCells {
  readonly isRunning = state(true);
  /** The request ids of the running cells. */
  readonly #cells = new Set<string>();
  /** Whether a cell that started before we received messages may still be running. */
  #mayHaveEarlier = true;

  /** Forgets all cells. `mayHaveEarlier` is true for a new kernel, and false for one that was restarted or is dead. */
  reset({ mayHaveEarlier }: { mayHaveEarlier: boolean }): void {
    this.#cells.clear();
    this.#mayHaveEarlier = mayHaveEarlier;
    this.#update();
  }

  begins(id: string): void {
    this.#cells.add(id);
    this.#update();
  }

  ends(id: string): void {
    if (!this.#cells.delete(id)) this.#mayHaveEarlier = false; // the earlier cell has ended
    this.#update();
  }

  /** The earlier cell, if there was one, has ended. */
  noEarlierCell(): void {
    this.#mayHaveEarlier = false;
    this.#update();
  }

  #update(): void {
    this.isRunning.value = this.#mayHaveEarlier || this.#cells.size > 0;
  }
}

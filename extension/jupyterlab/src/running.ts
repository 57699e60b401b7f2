/** Whether a cell runs in a kernel, derived from its messages. */

import { signal as state } from "@residscope/widgets";

export class Running {
  readonly any = state(true);
  /** The request ids of the running cells. */
  readonly #cells = new Set<string>();
  /** Whether a cell may run that started before we listened. */
  #earlier = true;

  /** Forgets all cells: for a new kernel (`earlier` is true), or one that was restarted or is dead. */
  reset({ earlier }: { earlier: boolean }): void {
    this.#cells.clear();
    this.#earlier = earlier;
    this.#update();
  }

  begins(id: string): void {
    this.#cells.add(id);
    this.#update();
  }

  ends(id: string): void {
    if (!this.#cells.delete(id)) this.#earlier = false; // an unknown cell has ended; cells run one after the other
    this.#update();
  }

  /** Reports that no earlier cell is running any more. */
  noneEarlier(): void {
    this.#earlier = false;
    this.#update();
  }

  #update(): void {
    this.any.value = this.#earlier || this.#cells.size > 0;
  }
}

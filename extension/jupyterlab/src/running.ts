/** Whether a cell runs in a kernel, as its messages tell. */

import { signal as state } from "@residscope/widgets";

export class Running {
  readonly any = state(true);
  /** By the ids of their requests. */
  readonly #cells = new Set<string>();
  /** Whether one may run that began before anybody listened. */
  #earlier = true;

  /** All at once: a kernel that nobody has listened to yet, or one that was restarted or is dead. */
  reset({ earlier }: { earlier: boolean }): void {
    this.#cells.clear();
    this.#earlier = earlier;
    this.#tell();
  }

  begins(id: string): void {
    this.#cells.add(id);
    this.#tell();
  }

  ends(id: string): void {
    if (!this.#cells.delete(id)) this.#earlier = false; // cells run one after the other
    this.#tell();
  }

  /** What may have begun before is over. */
  noneEarlier(): void {
    this.#earlier = false;
    this.#tell();
  }

  #tell(): void {
    this.any.value = this.#earlier || this.#cells.size > 0;
  }
}

// The state that the attention views of one panel share: the maps, the colour scale, the active destination.
import { computed, type ReadonlySignal, signal as state } from "@preact/signals-core";
import { showsEach } from "../../state/next-tokens";
import type { Reading } from "../../state/reading";
import type { Presentation, Store } from "../../state/store";
import type { Client } from "../../wire/client";
import { AttentionStore } from "./attention-data";
import { Limits } from "./attention-scale";

export class AttentionRoom {
  readonly data: AttentionStore;
  readonly limits: Limits;
  /** The destination under the pointer, in a matrix or next to it. */
  readonly pointed = state<number | null>(null);
  /** What the destination under the pointer reads. The token strip shows it while the pointer is there. */
  readonly followed = state<Reading | null>(null);
  /**
   * The row and the column of a cell or a token under the pointer. A token of the strip is both. But while the strip
   * shows what is added to each token, there is only a row: the position that predicts the token.
   */
  readonly hovered: ReadonlySignal<{ row: number | null; column: number | null }>;
  /** The active destination: the hovered row, else the panel's destination. */
  readonly row: ReadonlySignal<number | null>;

  constructor(
    readonly store: Store,
    readonly client: Client,
  ) {
    this.data = new AttentionStore(store, client);
    this.limits = new Limits(store);
    this.hovered = computed(() => {
      const [pointed, token] = [this.pointed.value, store.hoveredToken.value];
      if (pointed !== null || token === null || !showsEach(store)) return { row: pointed ?? token, column: token };
      return { row: token > 0 ? token - 1 : null, column: null };
    });
    this.row = computed(() => this.hovered.value.row ?? store.destination.value);
  }

  /** Whether one of these presentations is visible; only visible ones send requests. */
  inSight(...presentations: Presentation[]): ReadonlySignal<boolean> {
    const { tab, presentation } = this.store;
    return computed(() => tab.value === "attention" && presentations.includes(presentation.value));
  }
}

// What the attention views of one panel share: the maps that came, the colour scale, the row that is read.
import { computed, type ReadonlySignal, signal as state } from "@preact/signals-core";
import type { Reading } from "../../state/reading";
import type { Presentation, Store } from "../../state/store";
import type { Client } from "../../wire/client";
import { AttentionStore } from "./attention-data";
import { Limits } from "./attention-scale";

export class AttentionRoom {
  readonly data: AttentionStore;
  readonly limits: Limits;
  /** The destination under the pointer, in a matrix or beside it. */
  readonly pointed = state<number | null>(null);
  /** What the row under the pointer of a card reads: the strip shows that, for as long. */
  readonly followed = state<Reading | null>(null);
  /** The destination that is read out: pointed at, or a token hovered elsewhere, or the panel's own. */
  readonly row: ReadonlySignal<number | null>;

  constructor(
    readonly store: Store,
    readonly client: Client,
  ) {
    this.data = new AttentionStore(store, client);
    this.limits = new Limits(store);
    this.row = computed(() => this.pointed.value ?? store.hoveredToken.value ?? store.destination.value);
  }

  /** Only what is in sight asks the kernel. */
  inSight(...presentations: Presentation[]): ReadonlySignal<boolean> {
    const { tab, presentation } = this.store;
    return computed(() => tab.value === "attention" && presentations.includes(presentation.value));
  }
}

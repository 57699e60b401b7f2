// The sidebar's link to a kernel: a transport for messages, and its state. Each host implements it.
import type { ReadonlySignal } from "@preact/signals-core";
import type { Transport } from "../wire/client";

export type LinkState =
  /** There is no kernel, or it has ended. */
  | { kind: "none"; words: string }
  /** Attaching has begun. If `busy`, it waits for a running cell; `words` name anything else that it waits for. */
  | { kind: "attaching"; busy: boolean; words?: string; act?: string }
  /** The kernel answers; `words` and `line` are set if its version differs. */
  | { kind: "ready"; words?: string; line?: string }
  /**
   * The kernel cannot answer, or its version cannot work with the host. `line` is code to run in the notebook. `act` is
   * the label of a button for an action of the host.
   */
  | { kind: "refused"; words: string; line?: string; act?: string };

/** Requests sent while the link attaches are not lost: after `onRenewed` they are sent again. */
export interface Link extends Transport {
  readonly state: ReadonlySignal<LinkState>;
  /** The number of cells that have ended. After each, the caches are listed again. */
  readonly cells: ReadonlySignal<number>;
  /** Tries to attach again after a refusal. */
  retry(): void;
  /** Runs the action whose label is the state's `act`. */
  act?(): void;
}

// A kernel as the sidebar sees it: a transport for messages, and the state of the link. Each host implements it.
import type { ReadonlySignal } from "@preact/signals-core";
import type { Transport } from "../wire/client";

export type LinkState =
  /** There is no kernel, or it is gone. */
  | { kind: "none"; words: string }
  /** Attaching: it has just begun, or waits for a running cell (`busy`) or for what `words` say. */
  | { kind: "attaching"; busy: boolean; words?: string; act?: string }
  /** The kernel answers; `words` and `line` are set if its version differs. */
  | { kind: "ready"; words?: string; line?: string }
  /**
   * The kernel cannot answer, or not in this version; `line` is code to run there, `act` the label of a button for what
   * the host can do about it.
   */
  | { kind: "refused"; words: string; line?: string; act?: string };

/** Requests sent while the link attaches are not lost: after `onRenewed` they are sent again. */
export interface Link extends Transport {
  readonly state: ReadonlySignal<LinkState>;
  /** Counts the cells that have ended; after each, the caches are listed again. */
  readonly cells: ReadonlySignal<number>;
  /** Tries to attach again after a refusal. */
  retry(): void;
  /** Runs the action that the state's `act` names. */
  act?(): void;
}

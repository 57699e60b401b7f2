// A kernel as the sidebar sees it: somebody who carries messages, and how things stand with it. Each host makes its
// own.
import type { ReadonlySignal } from "@preact/signals-core";
import type { Transport } from "../wire/client";

export type LinkState =
  /** Nothing to look at: no kernel, or it is gone. */
  | { kind: "none"; words: string }
  /** On the way: just opened, held up by a cell that runs (`busy`), or by what `words` say. */
  | { kind: "attaching"; busy: boolean; words?: string; act?: string }
  /** It answers; `words` and `line` where its version is another. */
  | { kind: "ready"; words?: string; line?: string }
  /**
   * The kernel cannot answer, or not in this version; `line` is what to run there, `act` a button for what the host can
   * do about it.
   */
  | { kind: "refused"; words: string; line?: string; act?: string };

/** What is sent while it attaches is not lost: `onRenewed` makes it be asked again. */
export interface Link extends Transport {
  readonly state: ReadonlySignal<LinkState>;
  /** Counts the cells that have ended: each is a reason to look again. */
  readonly cells: ReadonlySignal<number>;
  /** Tries again what was refused. */
  retry(): void;
  /** What the state's `act` names. */
  act?(): void;
}

/** Messages that say why a notebook has no kernel to read caches from. */

import type { LinkState } from "@residscope/widgets";
import { coded } from "@residscope/widgets/node";

/** What happened to the notebook's last kernel, as far as it is known. */
export type Past =
  /** There has been no kernel in this window. */
  | { what: "none" }
  /** The window was reloaded, or the notebook was closed and opened again; before that, a cache of this name was shown. */
  | { what: "window" | "notebook"; name: string }
  | { what: "restarted" | "another" };

export function absent(past: Past): LinkState {
  switch (past.what) {
    case "none":
      return {
        kind: "none",
        words: `No kernel has run a cell of this notebook yet. Run one, and its caches are listed here.`,
      };
    case "window":
      return { kind: "none", words: ended("The kernel ended with the window.", past.name) };
    case "notebook":
      return { kind: "none", words: ended("The kernel ended when this notebook was closed.", past.name) };
    case "restarted":
      return {
        kind: "none",
        words:
          "The kernel was restarted and has not run a cell since. " +
          "Run the cells again, and their caches are listed here.",
      };
    case "another":
      return {
        kind: "none",
        words:
          "This notebook’s kernel was changed or stopped, and no cell has been run since. " +
          "Run the cells, and their caches are listed here.",
      };
  }
}

const ended = (why: string, name: string): string => `${why} Run the cell that makes ${coded(name)} again.`;

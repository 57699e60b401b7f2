/** The messages for a notebook that has no kernel. */

import type { LinkState } from "@residscope/widgets";
import { coded } from "@residscope/widgets/node";

/** What is known about the end of the notebook's last kernel. */
export type LastKernel =
  /** Nothing: no cache of this notebook was shown, or the notebook was renamed. */
  | { cause: "none" }
  /** The window was reloaded, or the notebook was closed and opened again. Before, a cache of this name was shown. */
  | { cause: "window" | "notebook"; name: string }
  | { cause: "restarted" | "another" };

export function noKernel(last: LastKernel): LinkState {
  switch (last.cause) {
    case "none":
      return {
        kind: "none",
        words: `No kernel is known for this notebook. Run a cell, and its caches are listed here.`,
      };
    case "window":
      return { kind: "none", words: ended("The kernel ended with the window.", last.name) };
    case "notebook":
      return { kind: "none", words: ended("The kernel ended when this notebook was closed.", last.name) };
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

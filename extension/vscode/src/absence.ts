/** Why a notebook has no kernel that can be asked, in words. */

import type { LinkState } from "@residscope/widgets";
import { coded } from "@residscope/widgets/node";

/** What has become of the kernel that there was, as far as it is known. */
export type Past =
  /** There was none in this window. */
  | { what: "none" }
  /** Before the window was loaded again, or the notebook was opened again, a cache of this name was looked at. */
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
        words: `The kernel was restarted, and has run no cell since. Run the cells again, and their caches are listed here.`,
      };
    case "another":
      return {
        kind: "none",
        words: `This notebook’s kernel is another one now, or was ended, and has run no cell yet. Run the cells, and their caches are listed here.`,
      };
  }
}

const ended = (why: string, name: string): string => `${why} Run the cell that makes ${coded(name)} again.`;

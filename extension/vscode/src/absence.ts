/** Why there is no kernel to be had for a notebook, in words. */

import type { LinkState } from "@residscope/widgets";
import { shown } from "@residscope/widgets/pageless";

/** What has become of the kernel that there was, as far as it is known. */
export type Past =
  /** There was none in this window. */
  | { what: "none" }
  /** Before the window was loaded again, or the notebook was opened again, a cache of this name was looked at. */
  | { what: "window" | "notebook"; name: string }
  | { what: "restarted" | "another" };

const HERE = "and their caches are listed here";

export function absent(past: Past): LinkState {
  switch (past.what) {
    case "none": return { kind: "none", words: `No kernel has run a cell of this notebook yet. Run one, ${HERE.replace("their", "its")}.` };
    case "window": return { kind: "none", words: ended("The kernel ended with the window.", past.name) };
    case "notebook": return { kind: "none", words: ended("The kernel ended when this notebook was closed.", past.name) };
    case "restarted": return { kind: "none", words: `The kernel was restarted, and has run no cell since. Run the cells again, ${HERE}.` };
    case "another": return { kind: "none", words: `This notebook’s kernel is another one now, or was ended, and has run no cell yet. Run the cells, ${HERE}.` };
  }
}

const ended = (why: string, name: string): string => `${why} Run the cell that makes \`${shown(name).replaceAll("`", "ˋ")}\` again.`;

/** What the extension and its pages say to each other. A path is a notebook's address (`uri.toString()`). */

import type { Answer, LinkState, Opened, Place, Question } from "@residscope/widgets";

export type Command = "inspect" | "enlarge" | "next" | "previous" | "refresh";

export type ToHost =
  /** The page is there, and listens. */
  | { say: "hello" }
  /** The user has turned to this page. */
  | { say: "looked" }
  /** Wants to know how things stand with the kernel of a notebook, from now on. */
  | { say: "attach"; path: string }
  | { say: "ask"; path: string; questions: Question[] }
  | { say: "retry" | "act"; path: string }
  | { say: "remember"; opened: Opened }
  /** A view's last picture, as JSON, to be kept over a reload; and what was kept of one, please. */
  | { say: "keep"; path: string; name: string; picture: string }
  | { say: "recall"; path: string; name: string }
  | { say: "enlarge"; opened: Opened }
  | { say: "save"; number: number; name: string; bytes: ArrayBuffer };

export type ToPage =
  /** The first: the sidebar with what was looked at before, or one view. */
  | { say: "sidebar"; remembered: Opened[] }
  | { say: "view"; opened: Opened }
  | { say: "visible"; visible: boolean }
  | { say: "places"; focused: Place | null; running: Place[] }
  | { say: "state"; path: string; state: LinkState }
  | { say: "lost" | "renewed" | "cell"; path: string }
  /** Whether a cell or one of our own requests runs there. */
  | { say: "occupied"; path: string; occupied: boolean }
  | { say: "answer"; path: string; answer: Answer; buffers: ArrayBuffer[] }
  | { say: "saved"; number: number; saved: boolean }
  | { say: "recalled"; path: string; name: string; picture: string | null }
  /** A notebook has another name. */
  | { say: "moved"; from: string; to: string }
  | { say: "command"; command: Command; name: string | null };

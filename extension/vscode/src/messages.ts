/** The messages between the extension and its pages. `path` is a notebook's URI (`uri.toString()`). */

import type { Answer, Chapter, LinkState, Opened, Place, Question } from "@residscope/widgets";

export type Command = "inspect" | "enlarge" | "next" | "previous" | "refresh" | "help";

export type ToHost =
  /** The page is loaded. */
  | { say: "hello" }
  /** The user is using this page. */
  | { say: "used" }
  /** Subscribes to the state of a notebook's kernel. */
  | { say: "attach"; path: string }
  | { say: "ask"; path: string; questions: Question[] }
  | { say: "retry" | "act"; path: string }
  | { say: "remember"; opened: Opened }
  /** `keep` stores a view's last picture as JSON, to show it after a reload. `recall` requests this picture. */
  | { say: "keep"; path: string; name: string; picture: string }
  | { say: "recall"; path: string; name: string }
  | { say: "enlarge"; opened: Opened }
  /** Opens a chapter of the documentation. */
  | { say: "help"; chapter: Chapter }
  | { say: "save"; number: number; name: string; bytes: ArrayBuffer };

export type ToPage =
  /** The first message says what the page is: the sidebar, with the views that were open before, or a single view. */
  | { say: "sidebar"; remembered: Opened[] }
  | { say: "view"; opened: Opened }
  | { say: "visible"; visible: boolean }
  | { say: "places"; focused: Place | null; running: Place[] }
  | { say: "state"; path: string; state: LinkState }
  | { say: "lost" | "renewed" | "cell"; path: string }
  /** Whether the kernel runs a cell, or one of our requests. */
  | { say: "occupied"; path: string; occupied: boolean }
  | { say: "answer"; path: string; answer: Answer; buffers: ArrayBuffer[] }
  | { say: "saved"; number: number; saved: boolean }
  | { say: "recalled"; path: string; name: string; picture: string | null }
  /** A notebook was renamed. */
  | { say: "moved"; from: string; to: string }
  | { say: "command"; command: Command; name: string | null };

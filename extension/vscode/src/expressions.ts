/** The expressions that a kernel runs for us. Their value is None, they add no name to the namespace, and they are ASCII. */

import { randomBytes } from "node:crypto";
import type { Question } from "@residscope/widgets";
import { attaching, KERNEL_INFO, pythonText } from "@residscope/widgets/node";

import attachCode from "../../../py_backend/residscope/hosts/attach.py";

/** A MIME type of our own; as in `residscope.hosts.execute`. */
export const MIME = "application/vnd.residscope+json";

/** A new token for each request; its answers carry it, so that the output of other code cannot be taken for them. */
export const newToken = (): string => randomBytes(16).toString("hex");

/** Attaches, and displays which Residscope the kernel has. */
export const greeting = (token: string): string => {
  const shown = `{"${MIME}": {"token": "${token}", "who": ${KERNEL_INFO}}}`;
  return `(${attaching(attachCode)}, __import__("IPython.display", fromlist=["_"]).display(${shown}, raw=True))[1]`;
};

/**
 * Sends requests. It imports nothing, because a kernel that was restarted meanwhile might import a file from the
 * notebook's folder. Such a kernel answers nothing and raises nothing.
 */
export const asking = (token: string, questions: Question[]): string => {
  const answer = `getattr(__import__("sys").modules.get("residscope.hosts.execute"), "answer", lambda *_: None)`;
  return `${answer}(${pythonText(JSON.stringify(questions))}, "${token}")`;
};

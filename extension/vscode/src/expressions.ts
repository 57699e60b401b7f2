/** The expressions that a kernel runs for us. They are ASCII, have the value None, and add no name to the namespace. */

import { randomBytes } from "node:crypto";
import type { Question } from "@residscope/widgets";
import { attachExpression, KERNEL_INFO, pythonText } from "@residscope/widgets/node";

import attachCode from "../../../py_backend/residscope/hosts/attach.py";

/** The MIME type of our outputs, the same as in `residscope.hosts.execute`. */
export const MIME = "application/vnd.residscope+json";

/** A new token for a request. Only outputs with this token are taken as answers, so that other code cannot answer. */
export const newToken = (): string => randomBytes(16).toString("hex");

/** Attaches, and displays the kernel's version of Residscope. */
export const attachAndDescribe = (token: string): string => {
  const data = `{"${MIME}": {"token": "${token}", "info": ${KERNEL_INFO}}}`;
  const display = `__import__("IPython.display", fromlist=["_"]).display(${data}, raw=True)`;
  return `(${attachExpression(attachCode)}, ${display})[1]`;
};

/**
 * Answers requests. It imports nothing: if the kernel was restarted, an import could load a file from the notebook's
 * folder. A restarted kernel gives no answer and no error.
 */
export const requestExpression = (token: string, questions: Question[]): string => {
  const answer = `getattr(__import__("sys").modules.get("residscope.hosts.execute"), "answer", lambda *_: None)`;
  return `${answer}(${pythonText(JSON.stringify(questions))}, "${token}")`;
};

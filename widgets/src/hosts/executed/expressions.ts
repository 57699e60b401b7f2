// The expressions that a kernel runs for a host that can only run code, such as VS Code. They are ASCII, have the value
// None, and add no name to the namespace. The kernel's side is `residscope.hosts.execute`.
import { pythonText } from "../../base/python";
import type { Question } from "../../wire/protocol.gen";
import { attachExpression, KERNEL_INFO } from "../handshake";

/** The MIME type of our outputs, the same as in `residscope.hosts.execute`. */
export const MIME = "application/vnd.residscope+json";

/** A new token for a request. Only outputs with this token are taken as answers, so that other code cannot answer. */
export const newToken = (): string =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** Attaches by running the text of `hosts/attach.py`, and displays the kernel's version of Residscope. */
export const attachAndDescribe = (attachCode: string, token: string): string => {
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

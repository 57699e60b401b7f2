/** What a kernel is asked to run: expressions that are None, leave no name behind, and are ASCII. */

import { randomBytes } from "node:crypto";
import type { Question } from "@residscope/widgets";
import { attaching, pythonText, WHO } from "@residscope/widgets/node";

import attachCode from "../../../py_backend/residscope/hosts/attach.py";

/** What only we write and read; as in `residscope.hosts.execute`. */
export const MIME = "application/vnd.residscope+json";

/** What an answer bears, so that it is known from what other code shows meanwhile; another one for each request. */
export const newToken = (): string => randomBytes(16).toString("hex");

/** Attaches, and shows who is there. */
export const greeting = (token: string): string => {
  const shown = `{"${MIME}": {"token": "${token}", "who": ${WHO}}}`;
  return `(${attaching(attachCode)}, __import__("IPython.display", fromlist=["_"]).display(${shown}, raw=True))[1]`;
};

/**
 * Asks. Nothing is imported for it: a kernel that was restarted meanwhile would import what lies in the notebook's
 * folder. There nothing is answered, and nothing is raised.
 */
export const asking = (token: string, questions: Question[]): string =>
  `getattr(__import__("sys").modules.get("residscope.hosts.execute"), "answer", lambda *_: None)(${pythonText(JSON.stringify(questions))}, "${token}")`;

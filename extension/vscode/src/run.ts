/** Lets a kernel run an expression, and yields what it displays. Knows nothing about notebooks. */

import type { Kernel } from "@vscode/jupyter-extension";
import type { CancellationToken } from "vscode";

import { MIME } from "./expressions";

/** The name of the error after the user has revoked our access; documented by the Jupyter extension. */
const REVOKED = "vscode.jupyter.apiAccessRevoked";
const ERROR = "application/vnd.code.notebook.error";

/** VS Code refused to run it, for a reason that only the user can change. */
export class Refused extends Error {}

/** Requests are never cancelled, because that would interrupt the user's kernel. */
const NEVER: CancellationToken = {
  isCancellationRequested: false,
  onCancellationRequested: () => ({ dispose: () => undefined }),
};

export type Carried = Record<string, unknown>;

/**
 * Yields the outputs that have our MIME type and this token. All others are ignored: warnings on stderr, and output of
 * other code. An error is thrown only at the end, because it may come from other code.
 */
export async function* run(kernel: Kernel, expression: string, token: string): AsyncGenerator<Carried> {
  let trouble: string | null = null;
  try {
    for await (const { items } of kernel.executeCode(expression, NEVER)) {
      for (const { mime, data } of items) {
        if (mime === ERROR) trouble ??= errorIn(data);
        if (mime !== MIME) continue;
        const carried = objectIn(data);
        if (carried["token"] === token) yield carried;
      }
    }
  } catch (error) {
    if (error instanceof Error && error.name === REVOKED) throw new Refused("Access to this kernel was revoked.");
    throw error;
  }
  if (trouble !== null) throw new Error(trouble);
}

function errorIn(data: Uint8Array): string {
  const { name, message } = objectIn(data);
  return [name, message].filter((part) => typeof part === "string" && part).join(": ") || "an error without a name";
}

/** The object in some JSON; an empty object if it contains none. */
function objectIn(data: Uint8Array): Carried {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(data));
    return typeof value === "object" && value !== null ? (value as Carried) : {};
  } catch {
    return {};
  }
}

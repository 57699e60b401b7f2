/** Has a kernel run an expression, and gives what it shows in answer. Knows nothing of notebooks. */

import type { Kernel } from "@vscode/jupyter-extension";
import type { CancellationToken } from "vscode";

import { MIME } from "./expressions";

/** The name of the error that says that the user has taken our access away; documented by the Jupyter extension. */
const REVOKED = "vscode.jupyter.apiAccessRevoked";
const ERROR = "application/vnd.code.notebook.error";

/** VS Code would not run it, for a reason that only the user can do something about. */
export class Refused extends Error {}

/** Never cancelled: once a request has started, that would interrupt the user's kernel. */
const NEVER: CancellationToken = {
  isCancellationRequested: false,
  onCancellationRequested: () => ({ dispose: () => undefined }),
};

export type Carried = Record<string, unknown>;

/**
 * What our MIME type carries with this token, output by output. All else is ignored: a warning on stderr, and what
 * other code shows, which may be anything. An error is thrown at the end, since it may be that of other code, too.
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
    if (error instanceof Error && error.name === REVOKED) throw new Refused("Access to this kernel was taken away.");
    throw error;
  }
  if (trouble !== null) throw new Error(trouble);
}

function errorIn(data: Uint8Array): string {
  const { name, message } = objectIn(data);
  return [name, message].filter((part) => typeof part === "string" && part).join(": ") || "an error without a name";
}

/** The object that some JSON holds; one without properties where it is none. */
function objectIn(data: Uint8Array): Carried {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(data));
    return typeof value === "object" && value !== null ? (value as Carried) : {};
  } catch {
    return {};
  }
}

/** Lets a kernel run an expression, and yields the outputs that it displays. */

import { MIME, type OutputData } from "@residscope/widgets/node";
import type { Kernel } from "@vscode/jupyter-extension";
import type { CancellationToken } from "vscode";

/** The name of the error after the user has revoked our access, as the Jupyter extension documents it. */
const REVOKED = "vscode.jupyter.apiAccessRevoked";
const ERROR = "application/vnd.code.notebook.error";

/** VS Code refused to run the expression. Only the user can change that. */
export class Refused extends Error {}

/** Requests are never cancelled, because that would interrupt the user's kernel. */
const NEVER: CancellationToken = {
  isCancellationRequested: false,
  onCancellationRequested: () => ({ dispose: () => undefined }),
};

/**
 * Yields the outputs that have our MIME type and this token. It ignores all others, such as warnings on stderr and the
 * output of other code. An error among the outputs is thrown only at the end, because it may come from other code.
 */
export async function* run(kernel: Kernel, expression: string, token: string): AsyncGenerator<OutputData> {
  let trouble: string | null = null;
  try {
    for await (const { items } of kernel.executeCode(expression, NEVER)) {
      for (const { mime, data } of items) {
        if (mime === ERROR) trouble ??= errorIn(data);
        if (mime !== MIME) continue;
        const output = objectIn(data);
        if (output["token"] === token) yield output;
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

/** The object in a JSON text; an empty object if the text contains none. */
function objectIn(data: Uint8Array): OutputData {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(data));
    return typeof value === "object" && value !== null ? (value as OutputData) : {};
  } catch {
    return {};
  }
}

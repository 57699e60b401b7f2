// A turn: a moment in which the kernel runs the user's model. It is a silent request on the main shell, so it comes
// between two cells. (A comm message is not enough: ipykernel 7 handles it while an async cell waits.)
import { randomId } from "../base/ids";

/** The ids of these requests begin with this, so that a sidebar does not take them for the user's cells. */
const PREFIX = "residscope-turn-";

/** The part of a kernel's connection that a turn needs, in JupyterLab and Notebook. */
export interface TurnKernel {
  readonly clientId: string;
  readonly username: string;
  sendShellMessage(message: never, expectReply?: boolean, dispose?: boolean): { readonly done: Promise<unknown> };
}

export function isTurnKernel(value: unknown): value is TurnKernel {
  if (typeof value !== "object" || value === null) return false;
  const { clientId, username, sendShellMessage } = value as Record<string, unknown>;
  return typeof clientId === "string" && typeof username === "string" && typeof sendShellMessage === "function";
}

export const isTurn = (messageId: string): boolean => messageId.startsWith(PREFIX);

/**
 * The code of a turn. It imports nothing, and does nothing in a restarted kernel. The token may come from a notebook,
 * so only a name is accepted.
 */
export function turnCode(token: string): string {
  if (!/^[\w-]{1,100}$/.test(token)) throw new Error("This does not name a turn.");
  return `getattr(__import__("sys").modules.get("residscope.hosts.turns"), "take", lambda *_: None)("${token}")`;
}

/**
 * Makes the kernel take a turn after the cells that are running or queued. Settles after that, also if the turn was
 * cancelled because one of these cells failed. Rejects if the kernel was restarted or is gone.
 */
export async function takeTurn(kernel: TurnKernel, token: string): Promise<void> {
  const message = {
    header: {
      msg_id: `${PREFIX}${randomId()}`,
      msg_type: "execute_request",
      session: kernel.clientId,
      username: kernel.username,
      date: new Date().toISOString(),
      version: "5.3",
    },
    parent_header: {},
    metadata: {},
    channel: "shell",
    buffers: [],
    content: {
      code: turnCode(token),
      silent: true,
      store_history: false,
      user_expressions: {},
      allow_stdin: false,
      stop_on_error: false,
    },
  };
  await kernel.sendShellMessage(message as never, true, true).done;
}

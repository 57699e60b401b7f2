/** Messages to a kernel, on a subshell if it has them: a thread that answers while the user's cell runs. */

import { type Kernel, KernelMessage } from "@jupyterlab/services";

/** A free kernel sends its kernel info in less time than this. */
const MOMENT_MS = 300;

const parts = (kernel: Kernel.IKernelConnection) => ({ username: kernel.username, session: kernel.clientId });

/**
 * Creates a subshell; null if the kernel does not support them.
 *
 * A busy kernel sends its kernel info only after its cell, so a page that was reloaded meanwhile does not know whether it
 * supports subshells. But they are created on the control channel, which is always answered: so we request one anyway.
 */
export async function createSubshell(kernel: Kernel.IKernelConnection): Promise<string | null> {
  const known = kernel.info.then(() => kernel.supportsSubshells);
  const supports = await Promise.race([known, after(MOMENT_MS)]);
  if (supports === false) return null;
  const message = KernelMessage.createMessage<KernelMessage.ICreateSubshellRequestMsg>({
    ...parts(kernel),
    msgType: "create_subshell_request",
    channel: "control",
    content: {},
  });
  const reply = kernel.sendControlMessage(message, true, true).done.then(
    ({ content }) => ("subshell_id" in content && typeof content.subshell_id === "string" ? content.subshell_id : null),
    () => null,
  );
  // Older kernels do not answer this request.
  return Promise.race([reply, known.then((does) => (does ? reply : null))]);
}

export function deleteSubshell(kernel: Kernel.IKernelConnection, subshell: string): void {
  const message = KernelMessage.createMessage<KernelMessage.IDeleteSubshellRequestMsg>({
    ...parts(kernel),
    msgType: "delete_subshell_request",
    channel: "control",
    content: { subshell_id: subshell },
  });
  kernel.sendControlMessage(message, true, true).done.catch(() => undefined); // the kernel is gone, and so is its subshell
}

/** Runs code silently (no `In[n]`, no history, no output), and returns the value of each expression as a MIME bundle. */
export async function execute(
  kernel: Kernel.IKernelConnection,
  subshell: string | null,
  code: string,
  expressions: Record<string, string>,
): Promise<Record<string, Record<string, unknown>>> {
  const message = KernelMessage.createMessage<KernelMessage.IExecuteRequestMsg>({
    ...parts(kernel),
    msgType: "execute_request",
    channel: "shell",
    subshellId: subshell,
    content: {
      code,
      silent: true,
      store_history: false,
      allow_stdin: false,
      stop_on_error: false,
      user_expressions: expressions as never,
    },
  });
  const { content } = (await kernel.sendShellMessage(message, true, true).done) as KernelMessage.IExecuteReplyMsg;
  if (content.status !== "ok")
    throw new Error(
      "ename" in content ? `${String(content.ename)}: ${String(content.evalue)}` : "The kernel did not run it.",
    );
  const found = (content.user_expressions ?? {}) as Record<
    string,
    { status?: string; data?: Record<string, unknown>; evalue?: string }
  >;
  return Object.fromEntries(Object.entries(found).map(([name, { data }]) => [name, data ?? {}]));
}

type CommType = "comm_open" | "comm_msg" | "comm_close";

/**
 * Sends one message of our own comm; settles when the kernel has handled it. JupyterLab's comms are not used, because
 * they need a connection that handles all comms of the kernel.
 */
export async function sendComm(
  kernel: Kernel.IKernelConnection,
  subshell: string | null,
  type: CommType,
  content: { comm_id: string; target_name?: string; data: unknown },
): Promise<void> {
  const message = KernelMessage.createMessage<KernelMessage.ICommMsgMsg<"shell">>({
    ...parts(kernel),
    msgType: type as "comm_msg",
    channel: "shell",
    subshellId: subshell,
    content: content as never,
  });
  await kernel.sendShellMessage(message, false, true).done;
}

function after(ms: number): Promise<undefined> {
  return new Promise((resolve) => setTimeout(() => resolve(undefined), ms));
}

/** Sends messages to a kernel; if possible, to a subshell: a thread of the kernel that answers while a cell runs. */

import { type Kernel, KernelMessage } from "@jupyterlab/services";

/** An idle kernel sends its kernel info in less time than this. */
const KERNEL_INFO_MS = 300;

const sender = (kernel: Kernel.IKernelConnection) => ({ username: kernel.username, session: kernel.clientId });

/**
 * Creates a subshell, and returns its id; null if the kernel does not support subshells or creates none.
 *
 * A busy kernel sends its kernel info only after its cell. So a page that was reloaded during the cell cannot find out
 * whether the kernel supports subshells. It requests a subshell anyway, because the kernel answers on the control
 * channel during a cell, too.
 */
export async function createSubshell(kernel: Kernel.IKernelConnection): Promise<string | null> {
  const supported = kernel.info.then(() => kernel.supportsSubshells);
  const answer = await Promise.race([supported, after(KERNEL_INFO_MS)]);
  if (answer === false) return null;
  const message = KernelMessage.createMessage<KernelMessage.ICreateSubshellRequestMsg>({
    ...sender(kernel),
    msgType: "create_subshell_request",
    channel: "control",
    content: {},
  });
  const reply = kernel.sendControlMessage(message, true, true).done.then(
    ({ content }) => ("subshell_id" in content && typeof content.subshell_id === "string" ? content.subshell_id : null),
    () => null,
  );
  // Older kernels do not answer this request.
  return Promise.race([reply, supported.then((isSupported) => (isSupported ? reply : null))]);
}

export function deleteSubshell(kernel: Kernel.IKernelConnection, subshell: string): void {
  const message = KernelMessage.createMessage<KernelMessage.IDeleteSubshellRequestMsg>({
    ...sender(kernel),
    msgType: "delete_subshell_request",
    channel: "control",
    content: { subshell_id: subshell },
  });
  // A failure means that the kernel has ended, and its subshell with it.
  kernel.sendControlMessage(message, true, true).done.catch(() => undefined);
}

/**
 * Runs code without `In[n]`, history or output, and returns the value of each expression as a MIME bundle. If an
 * expression failed, its bundle is empty.
 */
export async function execute(
  kernel: Kernel.IKernelConnection,
  subshell: string | null,
  code: string,
  expressions: Record<string, string>,
): Promise<Record<string, Record<string, unknown>>> {
  const message = KernelMessage.createMessage<KernelMessage.IExecuteRequestMsg>({
    ...sender(kernel),
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
      "ename" in content ? `${String(content.ename)}: ${String(content.evalue)}` : "The kernel did not run the code.",
    );
  const values = (content.user_expressions ?? {}) as Record<
    string,
    { status?: string; data?: Record<string, unknown>; evalue?: string }
  >;
  return Object.fromEntries(Object.entries(values).map(([name, { data }]) => [name, data ?? {}]));
}

type CommType = "comm_open" | "comm_msg" | "comm_close";

/**
 * Sends one message of our own comm, and waits until the kernel has handled it. JupyterLab's comms are not used,
 * because they need a connection that handles all comms of the kernel.
 */
export async function sendComm(
  kernel: Kernel.IKernelConnection,
  subshell: string | null,
  type: CommType,
  content: { comm_id: string; target_name?: string; data: unknown },
): Promise<void> {
  const message = KernelMessage.createMessage<KernelMessage.ICommMsgMsg<"shell">>({
    ...sender(kernel),
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

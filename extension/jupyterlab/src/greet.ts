/** Asks a kernel who its Residscope is, and says what stands in the way of working with it, if anything. */

import type { Kernel } from "@jupyterlab/services";
import { type LinkState, WIRE } from "@residscope/widgets";

import attachCode from "../../../py_backend/residscope/attach.py";
import { version } from "../package.json";
import { execute } from "./subshell";

/** Runs in a namespace of its own: the user's gets no name. */
const ATTACH = `exec(${JSON.stringify(attachCode)}, {"__name__": "residscope-attach"})`;

/** What the kernel's Residscope is, once attached; needs no name of the user's, and raises nothing where there is none. */
const WHO = `__import__("IPython.display", fromlist=["_"]).JSON({
  "python": __import__("sys").executable,
  "version": getattr(__import__("sys").modules.get("residscope"), "__version__", None),
  "wire": getattr(__import__("sys").modules.get("residscope.comm"), "WIRE", None)})`;

interface Who {
  python?: string;
  version?: string | null;
  wire?: string | null;
}

/** `ready` when the kernel's comm target is there and understands us. */
export async function greet(kernel: Kernel.IKernelConnection, subshell: string | null): Promise<LinkState> {
  // Only ipykernel has subshells: what has one is Python, also while it is too busy to say so.
  if (!subshell && (await kernel.info).language_info.name !== "python") {
    return { kind: "refused", words: "This kernel does not run Python, and TransformerLens lives there." };
  }
  const { who } = await execute(kernel, subshell, ATTACH, { who: WHO });
  return judge((who?.["application/json"] ?? {}) as Who);
}

export function judge(who: Who): LinkState {
  const line = `%pip install residscope==${version}`;
  if (!who.version) {
    const words = `This kernel’s environment (\`${who.python ?? "unknown"}\`) has no Residscope. Run this line in the notebook, then try again:`;
    return { kind: "refused", words, line };
  }
  if (!who.wire) {
    return { kind: "refused", words: `This kernel has Residscope ${who.version}, which could not be started there. Why, this line tells:`, line: "import residscope.comm" };
  }
  if (who.version === version) {
    if (who.wire === WIRE) return { kind: "ready" };
    return { kind: "refused", words: "Residscope was changed since this kernel or this page was started: restart the kernel and reload the page." };
  }
  const differ = `This kernel has Residscope ${who.version}, the sidebar is ${version}`;
  const remedy = "To have the same, run this line in the notebook and restart the kernel:";
  if (who.wire === WIRE) return { kind: "ready", words: `${differ}. ${remedy}`, line };
  return { kind: "refused", words: `${differ}, and they do not understand each other. ${remedy}`, line };
}

/** The Jupyter extension, and the kernel of a notebook; or what stands in the way, in words. */

import type { LinkState } from "@residscope/widgets";
import type { Jupyter, Kernel, KernelStatus } from "@vscode/jupyter-extension";
import { commands, extensions, type Uri, workspace } from "vscode";

const ID = "ms-toolsai.jupyter";
/** The Jupyter extension's own list of who may use kernels. It settles when that is closed. */
const MANAGE = "jupyter.manageAccessToKernels";

const UNTRUSTED =
  "VS Code lets no extension run code here, since this workspace is not trusted. Trust it (`Workspaces: Manage Workspace Trust`), and the caches are listed.";
const MISSING =
  "Kernels are reached through the Jupyter extension (`ms-toolsai.jupyter`), which is not installed or is disabled here. Install it, then try again.";
const OLD = "This Jupyter extension is too old to let others reach its kernels. Update it, then try again.";
const OTHER = "This kernel does not run Python, and TransformerLens lives there.";
export const DIED: LinkState = { kind: "none", words: "The kernel has died. Restart it, and run the cells again." };

const ACT = "Manage access";
/** Also where it was interrupted twice: an older Jupyter extension does not say which. */
export const DENIED: LinkState = {
  kind: "refused",
  act: ACT,
  words:
    "VS Code did not let Residscope run code in this kernel, and does not ask again. Allow it in `Jupyter: Manage Access To Jupyter Kernels`. Residscope reads caches; it changes nothing.",
};
/** While nobody has answered, or where an older one leaves a request lying without a word. */
export const ASKED: LinkState = {
  kind: "attaching",
  busy: false,
  act: ACT,
  words:
    "VS Code asks whether Residscope may use this kernel: answer its question. If you see none, allow it in `Jupyter: Manage Access To Jupyter Kernels`.",
};

/** Whether what stands in the way is VS Code's own, and may be gone when that has changed. */
export const standsInVsCode = (state: LinkState): boolean =>
  "words" in state && [UNTRUSTED, MISSING, OLD].includes(state.words ?? "");

/** Whether a cell that runs there may change what is in the way. */
export const maySoonBeThere = (state: LinkState): boolean => state.kind === "none" && state.words !== OTHER;

/** The kernel that the user has started for a notebook; null where none has run a cell; else what stands in the way. */
export async function kernelOf(notebook: Uri): Promise<Kernel | LinkState | null> {
  if (!workspace.isTrusted) return { kind: "refused", words: UNTRUSTED };
  const extension = extensions.getExtension<Jupyter>(ID);
  if (!extension) return { kind: "refused", words: MISSING };
  const api = extension.isActive ? extension.exports : await extension.activate();
  if (!api?.kernels?.getKernel) return { kind: "refused", words: OLD };
  const kernel = await api.kernels.getKernel(notebook);
  if (!kernel) return null;
  return kernel.language === "python" ? kernel : { kind: "none", words: OTHER };
}

export function isKernel(found: Kernel | LinkState | null): found is Kernel {
  return found !== null && "executeCode" in found;
}

export const isRestarting = (status: KernelStatus): boolean => status === "restarting" || status === "autorestarting";
/** Ended, or so it looks: a kernel that is restarted is called dead on the way. */
export const isDead = (status: KernelStatus): boolean => status === "dead" || status === "terminating";

/** Opens that list, until it is closed. */
export async function manageAccess(): Promise<void> {
  await commands.executeCommand(MANAGE);
}

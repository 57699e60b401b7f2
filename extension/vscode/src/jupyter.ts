/** The Jupyter extension and the kernel of a notebook; or a message about what prevents reaching it. */

import type { LinkState } from "@residscope/widgets";
import type { Jupyter, Kernel, KernelStatus } from "@vscode/jupyter-extension";
import { commands, extensions, type Uri, workspace } from "vscode";

const ID = "ms-toolsai.jupyter";
/** The command for the Jupyter extension's list of extensions that may use kernels; it settles when the list is closed. */
const MANAGE = "jupyter.manageAccessToKernels";

const UNTRUSTED =
  "This workspace is not trusted, so VS Code lets no extension run code here. Trust it (`Workspaces: Manage Workspace Trust`), and the caches are listed.";
const MISSING =
  "Kernels are reached through the Jupyter extension (`ms-toolsai.jupyter`), which is not installed or is disabled here. Install it, then try again.";
const OLD = "This Jupyter extension is too old to let others reach its kernels. Update it, then try again.";
const OTHER = "This kernel does not run Python, which TransformerLens needs.";
export const DIED: LinkState = { kind: "none", words: "The kernel has died. Restart it, and run the cells again." };

const ACT = "Manage access";
/** Also used if the request was interrupted twice, because an older Jupyter extension does not report the reason. */
export const DENIED: LinkState = {
  kind: "refused",
  act: ACT,
  words:
    "VS Code did not let Residscope run code in this kernel, and does not ask again. Allow it in `Jupyter: Manage Access To Jupyter Kernels`. Residscope reads caches; it changes nothing.",
};
/** Used while VS Code waits for the user's answer, or an older Jupyter extension does not react to a request. */
export const ASKED: LinkState = {
  kind: "attaching",
  busy: false,
  act: ACT,
  words:
    "VS Code asks whether Residscope may use this kernel: answer its question. If you see none, allow it in `Jupyter: Manage Access To Jupyter Kernels`.",
};

/** Whether VS Code itself is the obstacle, which may disappear when its state changes. */
export const standsInVsCode = (state: LinkState): boolean =>
  "words" in state && [UNTRUSTED, MISSING, OLD].includes(state.words ?? "");

/** Whether running a cell may make the kernel available. */
export const maySoonBeThere = (state: LinkState): boolean => state.kind === "none" && state.words !== OTHER;

/** The kernel of a notebook; null if it has not run a cell yet; or a state that says what prevents reaching it. */
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
/** Whether the kernel has ended, or seems so: a kernel that restarts is reported as dead for a moment. */
export const isDead = (status: KernelStatus): boolean => status === "dead" || status === "terminating";

/** Opens the list of extensions that may use kernels; settles when it is closed. */
export async function manageAccess(): Promise<void> {
  await commands.executeCommand(MANAGE);
}

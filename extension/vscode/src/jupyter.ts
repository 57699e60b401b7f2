/** Finds the kernel of a notebook through the Jupyter extension, or the reason why it cannot be reached. */

import type { LinkState } from "@residscope/widgets";
import type { Jupyter, Kernel, KernelStatus } from "@vscode/jupyter-extension";
import { commands, extensions, type Uri, workspace } from "vscode";

const ID = "ms-toolsai.jupyter";
/** The Jupyter extension's command that opens its list of extensions that may use kernels. */
const MANAGE = "jupyter.manageAccessToKernels";

const UNTRUSTED =
  "This workspace is not trusted, so VS Code lets no extension run code here. " +
  "Trust it (`Workspaces: Manage Workspace Trust`), and the caches are listed.";
const MISSING =
  "Kernels are reached through the Jupyter extension (`ms-toolsai.jupyter`), " +
  "which is not installed or is disabled here. Install it, then try again.";
const OLD = "This Jupyter extension is too old to let others reach its kernels. Update it, then try again.";
const OTHER = "This kernel does not run Python, which TransformerLens needs.";
export const DIED: LinkState = { kind: "none", words: "The kernel has died. Restart it, and run the cells again." };

const ACT = "Manage access";
/**
 * Also used if two attempts to attach give no output, or if an idle kernel does not run a request: an older Jupyter
 * extension does not report the reason.
 */
export const DENIED: LinkState = {
  kind: "refused",
  act: ACT,
  words:
    "VS Code did not let Residscope run code in this kernel, and does not ask again. " +
    "Allow it in `Jupyter: Manage Access To Jupyter Kernels`. Residscope reads caches; it changes nothing.",
};
/** Used while VS Code waits for the user's answer, or if an older Jupyter extension does not react to a request. */
export const ASKED: LinkState = {
  kind: "attaching",
  busy: false,
  act: ACT,
  words:
    "VS Code asks whether Residscope may use this kernel: answer its question. " +
    "If you see none, allow it in `Jupyter: Manage Access To Jupyter Kernels`.",
};

/** Whether VS Code prevents the connection. A change of its settings or extensions may end this. */
export const isPreventedByVsCode = (state: LinkState): boolean =>
  "words" in state && [UNTRUSTED, MISSING, OLD].includes(state.words ?? "");

/** Whether a kernel may be found after the user has run a cell. */
export const mayHelp = (state: LinkState): boolean => state.kind === "none" && state.words !== OTHER;

/** The kernel of a notebook; null if no cell has run yet; a state with the reason if the kernel cannot be reached. */
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
/** Whether the kernel is reported as dead. While a kernel restarts, it is reported as dead for a moment, too. */
export const isDead = (status: KernelStatus): boolean => status === "dead" || status === "terminating";

/** Opens the list of extensions that may use kernels, and waits until the user closes it. */
export async function manageAccess(): Promise<void> {
  await commands.executeCommand(MANAGE);
}

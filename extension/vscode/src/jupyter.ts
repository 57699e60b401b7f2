/** The Jupyter extension, and the kernel of a notebook; or what stands in the way, in words. */

import type { Jupyter, Kernel } from "@vscode/jupyter-extension";
import type { LinkState } from "@residscope/widgets";
import { extensions, type Uri, workspace } from "vscode";

const ID = "ms-toolsai.jupyter";

const UNTRUSTED = "VS Code lets no extension run code here, since this workspace is not trusted. Trust it (`Workspaces: Manage Workspace Trust`), and the caches are listed.";
const MISSING = "Kernels are reached through the Jupyter extension (`ms-toolsai.jupyter`), which is not installed or is disabled here. Install it, then try again.";
const OLD = "This Jupyter extension is too old to let others reach its kernels. Update it, then try again.";
const NONE = "No kernel has run a cell of this notebook yet. Run one, and its caches are listed here.";
const OTHER = "This kernel does not run Python, and TransformerLens lives there.";
export const DIED = "The kernel has died. Restart it, and run the cells again.";
/** Also where it was interrupted twice: the Jupyter extension does not say which. */
export const DENIED =
  "VS Code did not let Residscope run code in this kernel. Allow it (it asks once; later `Jupyter: Manage Access To Jupyter Kernels`), then try again. Residscope reads caches; it changes nothing.";

/** Whether what stands in the way is VS Code's own, and may be gone when that has changed. */
export const standsInVsCode = (state: LinkState): boolean => "words" in state && [UNTRUSTED, MISSING, OLD].includes(state.words ?? "");

/** The kernel that the user has started for a notebook; else why there is none. */
export async function kernelOf(notebook: Uri): Promise<Kernel | LinkState> {
  if (!workspace.isTrusted) return { kind: "refused", words: UNTRUSTED };
  const extension = extensions.getExtension<Jupyter>(ID);
  if (!extension) return { kind: "refused", words: MISSING };
  const api = extension.isActive ? extension.exports : await extension.activate();
  if (!api?.kernels?.getKernel) return { kind: "refused", words: OLD };
  const kernel = await api.kernels.getKernel(notebook);
  if (!kernel) return { kind: "none", words: NONE };
  if (kernel.status === "dead" || kernel.status === "terminating") return { kind: "none", words: DIED };
  return kernel.language === "python" ? kernel : { kind: "none", words: OTHER };
}

export function isKernel(found: Kernel | LinkState): found is Kernel {
  return "executeCode" in found;
}

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
export const DENIED =
  "VS Code did not let Residscope run code in this kernel. Allow it (`Jupyter: Manage Access To Jupyter Kernels`), then try again. Residscope reads caches; it changes nothing.";

/** The kernel that the user has started for a notebook; else why there is none. */
export async function kernelOf(notebook: Uri): Promise<Kernel | LinkState> {
  if (!workspace.isTrusted) return { kind: "refused", words: UNTRUSTED };
  const extension = extensions.getExtension<Jupyter>(ID);
  if (!extension) return { kind: "refused", words: MISSING };
  const api = extension.isActive ? extension.exports : await extension.activate();
  if (!api?.kernels?.getKernel) return { kind: "refused", words: OLD };
  const kernel = await api.kernels.getKernel(notebook);
  if (!kernel) return { kind: "none", words: NONE };
  return kernel.language === "python" ? kernel : { kind: "none", words: OTHER };
}

export function isKernel(found: Kernel | LinkState): found is Kernel {
  return "executeCode" in found;
}

/** Attaches to a kernel, and finds out whether this extension can work with the kernel's version of Residscope. */

import type { Kernel } from "@jupyterlab/services";
import { asKernelInfo, attachExpression, KERNEL_INFO, type LinkState, linkStateFor } from "@residscope/widgets";

import attachCode from "../../../py_backend/residscope/hosts/attach.py";
import { version } from "../package.json";
import { execute } from "./subshell";

/** Attaches, and returns the state of the link: `ready` if the kernel has the comm target of a compatible version. */
export async function attach(kernel: Kernel.IKernelConnection, subshell: string | null): Promise<LinkState> {
  // Only ipykernel has subshells, so a kernel with a subshell runs Python. Then `kernel.info` is not awaited, because a
  // busy kernel sends it only after its cell.
  if (!subshell && (await kernel.info).language_info.name !== "python") {
    return { kind: "refused", words: "This kernel does not run Python, which TransformerLens needs." };
  }
  const { info } = await execute(kernel, subshell, attachExpression(attachCode), {
    info: `__import__("IPython.display", fromlist=["_"]).JSON(${KERNEL_INFO})`,
  });
  return linkStateFor(asKernelInfo(info?.["application/json"]), version, "reload the page");
}

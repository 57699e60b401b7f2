/** Attaches to a kernel, and finds out which Residscope it has, and what prevents working with it, if anything. */

import type { Kernel } from "@jupyterlab/services";
import { asKernelInfo, attaching, judge, KERNEL_INFO, type LinkState } from "@residscope/widgets";

import attachCode from "../../../py_backend/residscope/hosts/attach.py";
import { version } from "../package.json";
import { execute } from "./subshell";

/** The state of the link: `ready` if the kernel has the comm target of a compatible version. */
export async function greet(kernel: Kernel.IKernelConnection, subshell: string | null): Promise<LinkState> {
  // Only ipykernel has subshells, so a kernel with one is Python, even if it is too busy to say so.
  if (!subshell && (await kernel.info).language_info.name !== "python") {
    return { kind: "refused", words: "This kernel does not run Python, which TransformerLens needs." };
  }
  const { who } = await execute(kernel, subshell, attaching(attachCode), {
    who: `__import__("IPython.display", fromlist=["_"]).JSON(${KERNEL_INFO})`,
  });
  return judge(asKernelInfo(who?.["application/json"]), version, "reload the page");
}

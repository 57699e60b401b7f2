/** Asks a kernel who its Residscope is, and says what stands in the way of working with it, if anything. */

import type { Kernel } from "@jupyterlab/services";
import { asWho, attaching, judge, type LinkState, WHO } from "@residscope/widgets";

import attachCode from "../../../py_backend/residscope/hosts/attach.py";
import { version } from "../package.json";
import { execute } from "./subshell";

/** `ready` when the kernel's comm target is there and understands us. */
export async function greet(kernel: Kernel.IKernelConnection, subshell: string | null): Promise<LinkState> {
  // Only ipykernel has subshells: what has one is Python, also while it is too busy to say so.
  if (!subshell && (await kernel.info).language_info.name !== "python") {
    return { kind: "refused", words: "This kernel does not run Python, and TransformerLens lives there." };
  }
  const { who } = await execute(kernel, subshell, attaching(attachCode), {
    who: `__import__("IPython.display", fromlist=["_"]).JSON(${WHO})`,
  });
  return judge(asWho(who?.["application/json"]), version, "reload the page");
}

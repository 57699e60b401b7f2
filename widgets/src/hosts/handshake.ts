// Finds out which version of Residscope a kernel has, and whether this host can work with it.

import { pythonText } from "../base/python";
import { WIRE } from "../wire/protocol.gen";
import type { LinkState } from "./link";

export { WIRE };

/**
 * A Python expression for a dictionary that describes the kernel's Residscope, after attaching. It uses no name from
 * the user's namespace. If Residscope is not installed, the expression raises no exception.
 */
export const KERNEL_INFO = `{
  "python": __import__("sys").executable,
  "version": getattr(__import__("sys").modules.get("residscope"), "__version__", None),
  "wire": getattr(__import__("sys").modules.get("residscope.hosts.comm"), "WIRE", None)}`;

export interface KernelInfo {
  python?: string;
  version?: string | null;
  wire?: string | null;
}

/** An expression that runs the text of `hosts/attach.py`, in a namespace that is not the user's. */
export const attachExpression = (code: string): string =>
  `exec(${pythonText(code)}, {"__name__": "residscope-attach"})`;

/** The value of KERNEL_INFO with checked types, because a user's module may be called "residscope", too. */
export function asKernelInfo(value: unknown): KernelInfo {
  const { python, version, wire } = (value ?? {}) as Record<keyof KernelInfo, unknown>;
  const textOrNull = (field: unknown): string | null => (typeof field === "string" ? field : null);
  return { python: textOrNull(python) ?? "unknown", version: textOrNull(version), wire: textOrNull(wire) };
}

/** `ready` if the kernel works with a host of this version, else `refused`. `reload` says how to reload the host. */
export function linkStateFor(kernel: KernelInfo, version: string, reload: string): LinkState {
  // Residscope is not on a package index yet, and another package could take its name there. So the line names a file.
  const line = `%pip install residscope-${version}-py3-none-any.whl`;
  if (!kernel.version) {
    const words =
      `This kernel’s environment (\`${kernel.python ?? "unknown"}\`) has no Residscope. Run this line in the ` +
      `notebook, with the path of the release’s wheel, then try again:`;
    return { kind: "refused", words, line };
  }
  if (!kernel.wire) {
    return {
      kind: "refused",
      words: `This kernel has Residscope ${kernel.version}, which could not be started. This line shows why:`,
      line: "import residscope.hosts.comm",
    };
  }
  if (kernel.version === version) {
    if (kernel.wire === WIRE) return { kind: "ready" };
    return {
      kind: "refused",
      words: `Residscope has changed since this kernel or this page was started: restart the kernel and ${reload}.`,
    };
  }
  const difference = `This kernel has Residscope ${kernel.version}, the sidebar is ${version}`;
  const remedy = "To use the same version, run this line, with the path of the wheel, and restart the kernel:";
  if (kernel.wire === WIRE) return { kind: "ready", words: `${difference}. ${remedy}`, line };
  return { kind: "refused", words: `${difference}, and these two versions cannot work together. ${remedy}`, line };
}

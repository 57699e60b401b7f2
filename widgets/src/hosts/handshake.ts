// Who a kernel's Residscope is, and what stands in the way of working with it.

import { pythonText } from "../base/python";
import { WIRE } from "../wire/protocol.gen";
import type { LinkState } from "./link";

export { WIRE };

/**
 * What a kernel's Residscope is, once attached, as a Python dictionary: needs no name of the user's, and raises nothing
 * where there is none.
 */
export const WHO = `{
  "python": __import__("sys").executable,
  "version": getattr(__import__("sys").modules.get("residscope"), "__version__", None),
  "wire": getattr(__import__("sys").modules.get("residscope.hosts.comm"), "WIRE", None)}`;

export interface Who {
  python?: string;
  version?: string | null;
  wire?: string | null;
}

/** How a host sends the text of `hosts/attach.py`: run in a namespace of its own, so that the user's gets no name. */
export const attaching = (code: string): string => `exec(${pythonText(code)}, {"__name__": "residscope-attach"})`;

/** What a kernel says of itself, as far as it is of the right types: a module of that name may hold anything. */
export function asWho(said: unknown): Who {
  const { python, version, wire } = (said ?? {}) as Record<keyof Who, unknown>;
  const text = (value: unknown): string | null => (typeof value === "string" ? value : null);
  return { python: text(python) ?? "unknown", version: text(version), wire: text(wire) };
}

/** `ready` where the kernel understands a host of this version; `reload` says how that host is renewed. */
export function judge(who: Who, version: string, reload: string): LinkState {
  const line = `%pip install residscope==${version}`;
  if (!who.version) {
    const words =
      `This kernel’s environment (\`${who.python ?? "unknown"}\`) has no Residscope. Run this line in the ` +
      `notebook, then try again:`;
    return { kind: "refused", words, line };
  }
  if (!who.wire) {
    return {
      kind: "refused",
      words: `This kernel has Residscope ${who.version}, which could not be started there. Why, this line tells:`,
      line: "import residscope.hosts.comm",
    };
  }
  if (who.version === version) {
    if (who.wire === WIRE) return { kind: "ready" };
    return {
      kind: "refused",
      words: `Residscope was changed since this kernel or this page was started: restart the kernel and ${reload}.`,
    };
  }
  const differ = `This kernel has Residscope ${who.version}, the sidebar is ${version}`;
  const remedy = "To have the same, run this line in the notebook and restart the kernel:";
  if (who.wire === WIRE) return { kind: "ready", words: `${differ}. ${remedy}`, line };
  return { kind: "refused", words: `${differ}, and they do not understand each other. ${remedy}`, line };
}

// Reports to the kernel whether a view of an inline panel is on a page. After the last view was removed from its page,
// the panel soon stops keeping its cache alive.

import { randomId } from "../base/ids";
import type { Transport } from "../wire/client";
import type { Presence } from "../wire/protocol.gen";

/** Starts reporting, and returns the name of this view. */
export function reportPresence(transport: Transport, signal: AbortSignal): string {
  const view = `view-${randomId()}`;
  const report = (state: Presence["state"]): void => {
    try {
      transport.send({ id: `${view}-${state}`, ask: { kind: "presence", view, state } });
    } catch {
      // The kernel has ended, and its cache is lost.
    }
  };
  report("shown");
  // "away", not "hidden": a page that is reloaded shows the view again soon, so the panel keeps its cache alive. A page
  // that the browser restores from memory still has the view.
  window.addEventListener("pagehide", () => report("away"), { signal });
  window.addEventListener("pageshow", (event) => event.persisted && report("shown"), { signal });
  signal.addEventListener("abort", () => report("hidden"), { once: true });
  return view;
}

// Reports to the kernel whether a view of an inline panel is on a page. While no page has a view, the panel does not
// keep its cache alive.

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
  // A reloaded page shows the view again soon. A page that the browser restores from memory still has the view.
  window.addEventListener("pagehide", () => report("away"), { signal });
  window.addEventListener("pageshow", (event) => event.persisted && report("shown"), { signal });
  signal.addEventListener("abort", () => report("hidden"), { once: true });
  return view;
}

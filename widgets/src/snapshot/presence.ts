// Tells the kernel side of an inline panel whether it is on a page: it keeps the cache alive only while it is.

import { randomId } from "../base/ids";
import type { Transport } from "../wire/client";
import type { Presence } from "../wire/protocol.gen";

/** Its name for this view. */
export function tellPresence(transport: Transport, signal: AbortSignal): string {
  const view = `view-${randomId()}`;
  const tell = (state: Presence["state"]): void => {
    try {
      transport.send({ id: `${view}-${state}`, ask: { kind: "presence", view, state } });
    } catch {
      // The kernel is gone, and its cache with it.
    }
  };
  tell("shown");
  // A reload takes the view away only for a moment; a page that is shown again from the browser's memory still has it.
  window.addEventListener("pagehide", () => tell("away"), { signal });
  window.addEventListener("pageshow", (event) => event.persisted && tell("shown"), { signal });
  signal.addEventListener("abort", () => tell("hidden"), { once: true });
  return view;
}

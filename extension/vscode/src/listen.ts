/** An event of VS Code's, heard until a signal ends it. */

import type { Event } from "vscode";

export function listen<T>(event: Event<T>, listener: (value: T) => void, signal: AbortSignal): void {
  if (signal.aborted) return;
  const heard = event(listener);
  signal.addEventListener("abort", () => heard.dispose(), { once: true });
}

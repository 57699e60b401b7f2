/** Listens to a VS Code event until an AbortSignal aborts. */

import type { Event } from "vscode";

export function listen<T>(event: Event<T>, listener: (value: T) => void, signal: AbortSignal): void {
  if (signal.aborted) return;
  const heard = event(listener);
  signal.addEventListener("abort", () => heard.dispose(), { once: true });
}

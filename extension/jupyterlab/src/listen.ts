/** Connects to a Lumino signal until an AbortSignal aborts. */

import type { ISignal } from "@lumino/signaling";

export function listen<T, U>(source: ISignal<T, U>, slot: (sender: T, args: U) => void, signal: AbortSignal): void {
  if (signal.aborted) return;
  source.connect(slot);
  signal.addEventListener("abort", () => source.disconnect(slot), { once: true });
}

// Shows what has happened to an inline panel's kernel. Only the kernel run that created a panel can answer it.
import { untracked } from "@preact/signals-core";
import { watch } from "../base/lifetime";
import type { Store } from "../state/store";
import { hostOf } from "../ui/theme";
import { type Client, SILENCE_MS } from "../wire/client";

const GONE = "was lost when the kernel restarted or ended. The last picture stays. Run the cell again.";
const UNANSWERED =
  "gets no answer: its kernel was restarted, or is running a long cell. If it was restarted, run the cell " +
  "again. The last picture stays.";

/** Follows the kernel; `view` is the kernel's id for this view. */
export function followKernel(el: HTMLElement, store: Store, client: Client, view: string, signal: AbortSignal): void {
  watch(signal, () => {
    const words = client.lost.value ? GONE : client.unanswered.value ? UNANSWERED : null;
    untracked(() => (store.statusNotice.value = words === null ? null : { words }));
  });
  // Not every host reports a lost kernel. There, pointing at the panel asks the kernel for a sign of life, so that the
  // message is true.
  if (hostOf() === "jupyter") return;
  let asked = Date.now();
  el.addEventListener(
    "pointerenter",
    () => {
      if (Date.now() - asked < SILENCE_MS || client.lost.peek() || client.unanswered.peek()) return;
      asked = Date.now();
      void client.spare({ kind: "presence", view, state: "shown" }, signal);
    },
    { signal },
  );
}

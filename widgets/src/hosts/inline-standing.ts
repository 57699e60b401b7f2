// What has become of an inline panel's kernel. A panel belongs to the run of the kernel that made it: no other run can
// answer.
import { untracked } from "@preact/signals-core";
import { watch } from "../base/lifetime";
import type { Store } from "../state/store";
import { hostOf } from "../ui/theme";
import { type Client, SILENCE_MS } from "../wire/client";

const GONE = "was lost when the kernel restarted or ended. The last picture stays. Run the cell again.";
const UNANSWERED =
  "is not answered for: its kernel was restarted, or runs a long cell. If it was restarted, run the cell " +
  "again. The last picture stays.";

/** `view` is what the kernel knows this view by. */
export function followKernel(el: HTMLElement, store: Store, client: Client, view: string, signal: AbortSignal): void {
  watch(signal, () => {
    const words = client.lost.value ? GONE : client.unanswered.value ? UNANSWERED : null;
    untracked(() => (store.standing.value = words === null ? null : { words }));
  });
  // Where nobody tells that the kernel is gone, who turns to the panel asks whether it is there: what is said of it is
  // to be true.
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

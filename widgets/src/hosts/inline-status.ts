// The message of an inline panel whose kernel was lost or does not answer, or whose variable now holds another cache. A
// panel gets answers only until its kernel ends or restarts.
import { untracked } from "@preact/signals-core";
import { watch } from "../base/lifetime";
import type { Store } from "../state/store";
import { hostOf } from "../ui/theme";
import { type Client, SILENCE_MS } from "../wire/client";

const LOST = "was lost when the kernel restarted or ended. The last picture stays. Run the cell again.";
const UNANSWERED =
  "gets no answer: its kernel was restarted, or is running a long cell. If it was restarted, run the cell " +
  "again. The last picture stays.";
const REBOUND =
  "now holds another cache. This panel shows the earlier one. To see the new one, run the cell of this panel again.";

/** Shows and updates the message. `view` is the name under which the kernel knows this view. */
export function followKernel(el: HTMLElement, store: Store, client: Client, view: string, signal: AbortSignal): void {
  watch(signal, () => {
    const words = client.lost.value ? LOST : client.unanswered.value ? UNANSWERED : null;
    const earlier = store.isEarlier.value ? { words: REBOUND, isLive: true } : null;
    untracked(() => (store.statusNotice.value = words === null ? earlier : { words }));
  });
  // JupyterLab and Notebook report a lost kernel. Other hosts may not report this. There, the panel sends a
  // request when the user points at the panel, to learn whether the kernel still answers.
  if (hostOf() === "jupyter") return;
  let lastRequest = Date.now();
  el.addEventListener(
    "pointerenter",
    () => {
      if (Date.now() - lastRequest < SILENCE_MS || client.lost.peek() || client.unanswered.peek()) return;
      lastRequest = Date.now();
      void client.spare({ kind: "presence", view, state: "shown" }, signal);
    },
    { signal },
  );
}

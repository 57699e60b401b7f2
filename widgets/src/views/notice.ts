// What is the matter with all of it, laid over the picture so that nothing moves: a kernel that is gone, or one that is busy.
// What a single view was refused stands in that view’s own place.
import { computed, signal as state } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import type { Client } from "../client";
import { child, element, later, watch } from "../lifetime";
import { IN_PLACE, type Store } from "../store";
import { prose } from "./prose";

const PATIENCE_MS = 1200;
const WAITING = "Waiting for the kernel: it may be running a cell. The last picture stays.";
const GONE = "The kernel was restarted or is gone. The last picture stays; run the cell again to connect anew.";

export function mountNotice(parent: HTMLElement, store: Store, client: Client, signal: AbortSignal): void {
  const alert = element("div", "rs-notice rs-alert", { role: "alert" });
  const quiet = element("div", "rs-notice");
  parent.append(alert, quiet);

  const silent = state(false);
  const asked = computed(() => client.inFlight.value > 0);
  const working = computed(() => {
    const progress = client.progress.value;
    return progress && `Working: ${progress.total > 0 ? `${progress.done} of ${progress.total} parts are read` : "this takes a moment"}. The last picture stays.`;
  });
  let pause: AbortController | null = null;
  watch(signal, () => {
    // Every answer starts the patience anew.
    void client.heard.value;
    pause?.abort();
    pause = null;
    silent.value = false;
    if (!asked.value) return;
    pause = child(signal);
    later(PATIENCE_MS, pause.signal, () => (silent.value = true));
  });

  watch(signal, () => {
    const sentences = [...new Set([...store.problems.value].flatMap(([lane, said]) => (IN_PLACE.has(lane) ? [] : said)))];
    render(sentences.length > 0 ? html`${sentences.map((s) => html`<p>${prose(s)}</p>`)}` : nothing, alert);
    // Where the header says what has become of the cache, it need not be said twice.
    const line = store.standing.value ? null : client.lost.value ? GONE : silent.value ? WAITING : working.value;
    render(line ? html`<p>${line}</p>` : nothing, quiet);
  });
}

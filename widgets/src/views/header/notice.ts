// Notices about the whole panel, for example that the kernel is gone or busy. A notice takes the place of the sentence
// line, so that nothing moves. The sentence line stays visible when the panel scrolls. If a request of a single view is
// refused, that view says so itself.
import { computed, signal as state } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import { coded, legibleSentence } from "../../base/legible";
import { child, element, later, watch } from "../../base/lifetime";
import { IN_PLACE, type Store } from "../../state/store";
import { prose } from "../../ui/prose";
import type { Client } from "../../wire/client";

const PATIENCE_MS = 1200;
const WAITING = ["Waiting for the kernel: it may be running a cell.", "The last picture stays."];
const GONE = ["The kernel was restarted or is gone: run the cell again."];

export function mountNotice(
  parent: HTMLElement,
  header: HTMLElement,
  store: Store,
  client: Client,
  signal: AbortSignal,
): void {
  const alert = element("div", "rs-notice rs-alert", { role: "alert" });
  const quiet = element("div", "rs-notice", { "aria-live": "polite" });
  parent.append(alert, quiet);

  const silent = state(false);
  const asked = computed(() => client.inFlight.value > 0);
  const working = computed(() => {
    const progress = client.progress.value;
    return (
      progress && [
        `Working: ${
          progress.total > 0 ? `${progress.done} of ${progress.total} steps are done` : "this takes a moment"
        }.`,
        "The last picture stays.",
      ]
    );
  });
  let pause: AbortController | null = null;
  watch(signal, () => {
    // Every reply restarts the time that must pass before the kernel counts as silent.
    void client.heard.value;
    pause?.abort();
    pause = null;
    silent.value = false;
    if (!asked.value) return;
    pause = child(signal);
    later(PATIENCE_MS, pause.signal, () => (silent.value = true));
  });

  const seen = state(true);
  const observer = new IntersectionObserver(([entry]) => void (seen.value = (entry?.intersectionRatio ?? 1) > 0.98), {
    threshold: [0, 0.98, 0.99],
  });
  observer.observe(header);
  signal.addEventListener("abort", () => observer.disconnect(), { once: true });

  watch(signal, () => {
    const sentences = [
      ...new Set([...store.problems.value].flatMap(([lane, said]) => (IN_PLACE.has(lane) ? [] : said))),
    ];
    // The header already has the message about the cache's status; repeat it only while the header is out of view.
    const standing = store.statusNotice.value;
    if (standing && !seen.value) sentences.unshift(`${coded(store.cacheName.value || "cache")} ${standing.words}`);
    alert.title = legibleSentence(sentences.join(" "));
    render(sentences.length > 0 ? html`${sentences.map((s) => html`<p>${prose(s)}</p>`)}` : nothing, alert);
    const line = standing ? null : client.lost.value ? GONE : silent.value ? WAITING : working.value;
    quiet.title = line?.join(" ") ?? "";
    render(line ? html`<p>${line.map((part) => html`<span>${part}</span> `)}</p>` : nothing, quiet);
  });
}

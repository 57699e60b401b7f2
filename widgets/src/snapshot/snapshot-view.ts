// The views of a snapshot, without a kernel, and a line above them that says what it is and what it lacks.
import { computed, signal as state, untracked } from "@preact/signals-core";
import { shown } from "../base/legible";
import { element, watch } from "../base/lifetime";
import { mountPanel } from "../panel";
import { show, shownOf } from "../state/selection";
import { Store } from "../state/store";
import { followTheme } from "../ui/theme";
import { type Ask, Client } from "../wire/client";
import type { Shown } from "../wire/protocol.gen";
import { REQUESTS, wordsFor } from "./requests";
import { Replay, type Snapshot } from "./snapshot";

/** The texts of a host about its snapshot. */
export interface Words {
  /** The line while nothing is missing. */
  quiet: string;
  /** The line if something is missing: what, and what to do. */
  refusal: (what: string) => string;
}

/** The texts for a snapshot in a notebook, where running the cell again makes a new panel. */
export function wordsOf({ saved, lacks }: Snapshot): Words {
  const date = new Date(saved).toLocaleString(undefined, { dateStyle: "long", timeStyle: "short" });
  const without = lacks.length > 0 ? `, without ${shown(lacks.join(", "))}` : "";
  return {
    quiet: `Saved picture of ${date}${without}; run the cell again for more.`,
    refusal: (what) => `This picture was saved without ${what}; run the cell again to see it.`,
  };
}

/**
 * Mounts the views of a snapshot. A selection that the snapshot has no data for is undone at once, and the line above
 * says so. So what is on screen is always consistent.
 */
export function mountSnapshot(parent: HTMLElement, snapshot: Snapshot, words: Words, signal: AbortSignal): void {
  const store = new Store();
  store.isSaved.value = true;
  const missing = state<string | null>(null);
  const selected = computed(() => shownOf(store));
  let complete = snapshot.selection;
  let [settling, broken] = [false, false];

  const refusal = (ask: Ask): string => words.refusal(nameOf(ask, complete));
  const replay = new Replay(snapshot, refusal, (ask) => {
    // The tokens of other prompts are requested only for the list of prompts, which can do without them.
    if (ask.kind === "tokens" && (ask.prompt ?? null) !== store.prompt.peek()) return;
    broken ||= settling && REQUESTS[ask.kind].needed;
    untracked(() => (missing.value ??= refusal(ask)));
  });
  show(store, snapshot.selection);
  store.cacheName.value = snapshot.name;
  store.preview.value = snapshot.preview ?? null;

  // Both run before the views send their requests, which they do in the same turn.
  watch(signal, () => {
    void store.preview.value;
    missing.value = null;
  });
  watch(signal, () => {
    const now = selected.value;
    settling = true;
    missing.value = null;
    queueMicrotask(() => {
      if (signal.aborted || now !== selected.peek()) return;
      const isComplete = !broken;
      settling = broken = false;
      if (isComplete) return void (complete = now);
      const sentence = missing.peek();
      show(store, complete);
      missing.value = sentence;
    });
  });

  const line = element("p", "rs-saved", { role: "status" });
  const top = element("div", "residscope", {}, line);
  followTheme(top, signal);
  watch(signal, () => {
    line.textContent = line.title = missing.value ?? words.quiet;
    line.classList.toggle("rs-missing", missing.value !== null);
  });
  parent.append(top);
  signal.addEventListener("abort", () => top.remove(), { once: true });
  mountPanel(parent, store, new Client(replay, signal), signal);
}

/** What a request is for, in words: the view, and the prompt, position or target if it was not the one on screen. */
function nameOf(ask: Ask, good: Shown): string {
  const differs = (a: unknown, b: unknown): boolean => JSON.stringify(a ?? null) !== JSON.stringify(b ?? null);
  const place =
    "prompt" in ask && differs(ask.prompt, good.prompt)
      ? ask.prompt == null
        ? "the mean over the prompts"
        : `prompt ${ask.prompt}`
      : "target" in ask && differs(ask.target, good.target)
        ? "this target"
        : "position" in ask && differs(ask.position ?? "last", good.position ?? "last")
          ? (ask.position ?? "last") === "last"
            ? "the last position"
            : `position ${ask.position}`
          : null;
  const what = wordsFor(ask, good, place);
  if (place === null) return what ?? "these numbers";
  return what === null || place === "this target" ? place : `${what} for ${place}`;
}

// The views of a snapshot, without a kernel. A line above them says that it is a saved picture, and what it lacks.
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

/** A host's texts for the line above a snapshot. */
export interface Words {
  /** The text if nothing is missing. */
  normal: string;
  /** The text if something is missing. It names what is missing, and says what to do. */
  refusal: (name: string) => string;
}

/** The texts for a snapshot in a notebook. There, running the cell again makes a new panel. */
export function wordsOf({ saved, lacks }: Snapshot): Words {
  const date = new Date(saved).toLocaleString(undefined, { dateStyle: "long", timeStyle: "short" });
  const without = lacks.length > 0 ? `, without ${shown(lacks.join(", "))}` : "";
  return {
    normal: `Saved picture of ${date}${without}; run the cell again for more.`,
    refusal: (name) => `This picture was saved without ${name}; run the cell again to see it.`,
  };
}

/**
 * Mounts the views of a snapshot. If the user selects something for which the snapshot has no data, the selection is
 * undone at once, and the line above says so. So the numbers on screen always belong to the selection.
 */
export function mountSnapshot(parent: HTMLElement, snapshot: Snapshot, words: Words, signal: AbortSignal): void {
  const store = new Store();
  store.isSaved.value = true;
  const missing = state<string | null>(null);
  const selected = computed(() => shownOf(store));
  /** The last selection for which all needed data was there. */
  let complete = snapshot.selection;
  /** Whether the selection has just changed, and whether a reply that it needs is missing. */
  let [isChanging, lacksNeeded] = [false, false];

  const refusal = (ask: Ask): string => words.refusal(missingWords(ask, complete));
  const replay = new Replay(snapshot, refusal, (ask) => {
    // The tokens of other prompts are requested only for the list of prompts, which can be drawn without them.
    if (ask.kind === "tokens" && (ask.prompt ?? null) !== store.prompt.peek()) return;
    lacksNeeded ||= isChanging && REQUESTS[ask.kind].needed;
    untracked(() => (missing.value ??= refusal(ask)));
  });
  show(store, snapshot.selection);
  store.cacheName.value = snapshot.name;
  store.preview.value = snapshot.preview ?? null;

  // The next two functions run before the views send their requests for a new selection.
  watch(signal, () => {
    void store.preview.value;
    missing.value = null;
  });
  watch(signal, () => {
    const now = selected.value;
    isChanging = true;
    missing.value = null;
    queueMicrotask(() => {
      if (signal.aborted || now !== selected.peek()) return;
      const isComplete = !lacksNeeded;
      isChanging = lacksNeeded = false;
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
    line.textContent = line.title = missing.value ?? words.normal;
    line.classList.toggle("rs-missing", missing.value !== null);
  });
  parent.append(top);
  signal.addEventListener("abort", () => top.remove(), { once: true });
  mountPanel(parent, store, new Client(replay, signal), signal);
}

/** Names the data of a request: the view, and the prompt, position or target if it is not the one on screen. */
function missingWords(ask: Ask, shownNow: Shown): string {
  const differs = (a: unknown, b: unknown): boolean => JSON.stringify(a ?? null) !== JSON.stringify(b ?? null);
  const place =
    "prompt" in ask && differs(ask.prompt, shownNow.prompt)
      ? ask.prompt == null
        ? "the mean over the prompts"
        : `prompt ${ask.prompt}`
      : "target" in ask && differs(ask.target, shownNow.target)
        ? "this target"
        : "position" in ask && differs(ask.position ?? "last", shownNow.position ?? "last")
          ? (ask.position ?? "last") === "last"
            ? "the last position"
            : `position ${ask.position}`
          : null;
  const name = wordsFor(ask, shownNow, place);
  if (place === null) return name ?? "these numbers";
  return name === null || place === "this target" ? place : `${name} for ${place}`;
}

// The views over a snapshot, without a kernel, and a line above them that says what they are and what they lack.
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

/** How a host speaks of its snapshot. */
export interface Words {
  /** What stands there as long as nothing is asked that is not held. */
  quiet: string;
  /** That something is not held, given what; and what to do. */
  refusal: (what: string) => string;
}

/** Of a picture that was kept where running the cell again makes another. */
export function wordsOf({ saved, lacks }: Snapshot): Words {
  const date = new Date(saved).toLocaleString(undefined, { dateStyle: "long", timeStyle: "short" });
  const without = lacks.length > 0 ? `, without ${shown(lacks.join(", "))}` : "";
  return {
    quiet: `Saved picture of ${date}${without}; run the cell again to ask more.`,
    refusal: (what) => `This picture was saved without ${what}; run the cell again to ask for it.`,
  };
}

/**
 * Mounts the views over a snapshot. A selection whose figures it does not hold is taken back at once, and the line
 * above says so: what is on screen always belongs together.
 */
export function mountSnapshot(parent: HTMLElement, snapshot: Snapshot, words: Words, signal: AbortSignal): void {
  const store = new Store();
  store.isSaved.value = true;
  const missing = state<string | null>(null);
  const selected = computed(() => shownOf(store));
  let good = snapshot.selection;
  let [settling, broken] = [false, false];

  const refusal = (ask: Ask): string => words.refusal(nameOf(ask, good));
  const replay = new Replay(snapshot, refusal, (ask) => {
    // Of prompts that are not in view only the text is asked, for a list that does without.
    if (ask.kind === "tokens" && (ask.prompt ?? null) !== store.prompt.peek()) return;
    broken ||= settling && REQUESTS[ask.kind].needed;
    untracked(() => (missing.value ??= refusal(ask)));
  });
  show(store, snapshot.selection);
  store.cacheName.value = snapshot.name;
  store.preview.value = snapshot.preview ?? null;

  // Both run before the views ask, which they do in the same breath.
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
      const whole = !broken;
      settling = broken = false;
      if (whole) return void (good = now);
      const sentence = missing.peek();
      show(store, good);
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

/** What a request asks for, in words: the place, where that is another one than was on screen, and the view. */
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
  if (place === null) return what ?? "these figures";
  return what === null || place === "this target" ? place : `${what} for ${place}`;
}

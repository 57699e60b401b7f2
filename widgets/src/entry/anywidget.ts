// The entry for anywidget hosts. In this file, "model" is the widget's model, which Python shares with the page.
// Requests are sent as its custom messages. Its traits and the store's signals are kept equal.

import type { AnyModel, RenderProps } from "@anywidget/types";
import { batch, untracked } from "@preact/signals-core";
import { child, watch } from "../base/lifetime";
import { followKernel } from "../hosts/inline-status";
import { mountPanel } from "../panel";
import { type Opening, Prefetched } from "../snapshot/prefetched";
import { reportPresence } from "../snapshot/presence";
import { answerSnapshotRequests, Recorder } from "../snapshot/recorder";
import { isWhole, type SharedTraits, type Signals, sharedOf, TRAITS } from "../state/selectable";
import { Store } from "../state/store";
import { Client, type Transport } from "../wire/client";
import type { CacheFacts } from "../wire/protocol.gen";
import { isTurnKernel, type TurnKernel, takeTurn } from "../wire/turns";

export { start } from "./standalone";

/** The traits of py_backend/residscope/hosts/panel.py that are shared with the views. */
export interface Traits extends SharedTraits {
  /** The description of the cache. The view also requests it from the kernel. */
  facts?: Partial<CacheFacts>;
  opening?: Opening;
  /** What the names of the cache and of the compared cache stand for now (py_backend/residscope/hosts/standing.py). */
  standing?: { rebound?: boolean; against?: [name: string, state: string] | null; changes?: number };
}

type Model = AnyModel<Traits>;

/** Adds a listener to the model, and removes it when the signal aborts. */
function listen(model: Model, event: string, listener: (...args: never[]) => void, signal: AbortSignal): void {
  if (signal.aborted) return;
  model.on(event, listener as (...args: unknown[]) => void);
  signal.addEventListener("abort", () => model.off(event as "msg:custom", listener as (...args: unknown[]) => void), {
    once: true,
  });
}

export function transportOver(model: Model, el: HTMLElement): Transport {
  return {
    send: (message, buffers) => model.send(message, undefined, buffers),
    // JupyterLab and Notebook report a restart only if their own page caused it. VS Code reports none. So silence
    // counts as a loss, unless a cell is known to be running.
    isSilenceLoss: () => !isRunning(el),
    get takeTurn() {
      const kernel = kernelOf(model);
      return kernel ? (token: string) => takeTurn(kernel, token) : undefined;
    },
    isCellRunning: () => (el.closest(".jp-Notebook") ? isRunning(el) : undefined),
    onMessage: (listener, signal) =>
      listen(model, "msg:custom", (message: unknown, buffers?: DataView[]) => listener(message, buffers ?? []), signal),
    // anywidget's proxy hides the real model. Listeners are called with the view as `this`, and the view has the real
    // model.
    onLost: (listener, signal) =>
      listen(
        model,
        "comm_live_update",
        function (this: unknown) {
          if (isDead(this) || el.closest(".jupyter-widgets-disconnected")) listener();
        },
        signal,
      ),
  };
}

/** The connection to the kernel, in JupyterLab and Notebook; null if the host has none or hides it. */
function kernelOf(model: object): TurnKernel | null {
  const manager = "widget_manager" in model ? model.widget_manager : null;
  const kernel = typeof manager === "object" && manager !== null && "kernel" in manager ? manager.kernel : null;
  return isTurnKernel(kernel) ? kernel : null;
}

/** Whether a cell of this notebook is running: JupyterLab and Notebook mark such a cell with "[*]". */
function isRunning(el: HTMLElement): boolean {
  const prompts = el.closest(".jp-Notebook")?.querySelectorAll(".jp-InputPrompt, .jp-InputArea-prompt") ?? [];
  return [...prompts].some((prompt) => prompt.textContent?.includes("[*]"));
}

function isDead(view: unknown): boolean {
  return (
    typeof view === "object" &&
    view !== null &&
    "model" in view &&
    (view as { model: { comm_live?: unknown } | null }).model?.comm_live === false
  );
}

/** Keeps a trait and a signal equal. They are compared as JSON, because Python sends new lists and objects. */
function sync<K extends keyof SharedTraits>(
  model: Model,
  trait: K,
  local: { value: SharedTraits[K] },
  signal: AbortSignal,
): void {
  const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);
  const pull = (): void => {
    const remote: SharedTraits[K] | undefined = model.get(trait);
    if (
      remote !== undefined &&
      isWhole(trait, remote) &&
      !same(
        remote,
        untracked(() => local.value),
      )
    )
      local.value = remote;
  };
  pull();
  listen(model, `change:${trait}`, pull, signal);
  watch(signal, () => {
    const now = local.value;
    untracked(() => {
      if (same(model.get(trait), now) || !isWhole(trait, now)) return;
      model.set(trait, now);
      try {
        model.save_changes();
      } catch {
        // The comm is closed: the client reports it, and the selection still works in the view.
      }
    });
  });
}

export function connect(model: Model, store: Signals, signal: AbortSignal): void {
  const shared = sharedOf(store);
  for (const trait of TRAITS) sync(model, trait, shared[trait], signal);
}

/** Whether two descriptions of a cache differ in the SAEs, and in nothing else. */
function isSameButSaes(before: CacheFacts | null, now: CacheFacts | null): boolean {
  const without = (facts: CacheFacts | null): string => JSON.stringify({ ...facts, saes: [] });
  return JSON.stringify(before?.saes) !== JSON.stringify(now?.saes) && without(before) === without(now);
}

function render({ model, el, signal }: RenderProps<Traits>): () => void {
  // Older hosts give no signal. They call the returned function.
  const end = signal ? child(signal) : new AbortController();
  const life = end.signal;
  const store = new Store();
  const describe = (): void => {
    const facts = model.get("facts");
    if (facts?.kind) store.facts.value = facts as CacheFacts; // Python sends a complete description or an empty object
  };
  describe();
  listen(
    model,
    "change:facts",
    () => {
      const before = store.facts.peek();
      describe();
      // The data of the pictures has changed, for example the last positions. A changed SAE changes only its features.
      if (!isSameButSaes(before, store.facts.peek())) store.described.value += 1;
    },
    life,
  );
  const prefetched = new Prefetched(transportOver(model, el), life);
  const putOpening = (): void => prefetched.put(model.get("opening") ?? {});
  putOpening();
  listen(model, "change:opening", putOpening, life);
  const transport = new Recorder(prefetched, store, life);
  connect(model, store, life);
  let changes = model.get("standing")?.changes ?? 0;
  const stand = (): void => {
    const { rebound, against, changes: now = 0 } = model.get("standing") ?? {};
    batch(() => {
      // A cell changed the cache or the weights: only new replies say so in the badge.
      if (now !== changes) store.described.value += 1;
      changes = now;
      store.isEarlier.value = rebound === true;
      store.runs.see(against?.[0] ?? null, against?.[1] ?? "");
    });
  };
  stand();
  listen(model, "change:standing", stand, life);
  const client = new Client(transport, life);
  const view = reportPresence(transport, life);
  followKernel(el, store, client, view, life);
  mountPanel(el, store, client, life);
  answerSnapshotRequests(el, transport, life);
  return () => end.abort();
}

export default { render };

// Entry for anywidget hosts: a transport over the model's custom messages, and the synced traits both ways.

import type { AnyModel, RenderProps } from "@anywidget/types";
import { untracked } from "@preact/signals-core";
import { watch } from "../base/lifetime";
import { followKernel } from "../hosts/inline-standing";
import { mountPanel } from "../panel";
import { Opened, type Opening } from "../snapshot/prefetched";
import { tellPresence } from "../snapshot/presence";
import { answerForPictures, Recorder } from "../snapshot/recorder";
import { isWhole, type SharedTraits, type Signals, sharedOf, TRAITS } from "../state/selectable";
import { Store } from "../state/store";
import { Client, type Transport } from "../wire/client";
import type { CacheFacts } from "../wire/protocol.gen";

/** The traits of py_backend/residscope/hosts/panel.py that are shared with the views. */
export interface Traits extends SharedTraits {
  /** What the cache is; asked for again all the same. */
  facts?: Partial<CacheFacts>;
  opening?: Opening;
}

type Model = AnyModel<Traits>;

/** `on` whose listener ends with the signal. */
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
    // JupyterLab and Notebook tell of their own restarts, not of another page's; VS Code tells of none.
    isSilenceLoss: () => !isRunning(el),
    onMessage: (listener, signal) =>
      listen(model, "msg:custom", (message: unknown, buffers?: DataView[]) => listener(message, buffers ?? []), signal),
    // The model is hidden behind anywidget's proxy; but events are called on the view, which knows it.
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

/** Whether a cell of this notebook runs, where its page is JupyterLab's or Notebook's: its prompt says so. */
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

/** Keeps a trait and a signal equal. Compared by content, since Python sends fresh lists and objects. */
function sync<K extends keyof SharedTraits>(
  model: Model,
  trait: K,
  own: { value: SharedTraits[K] },
  signal: AbortSignal,
): void {
  const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);
  const pull = (): void => {
    const theirs: SharedTraits[K] | undefined = model.get(trait);
    if (
      theirs !== undefined &&
      isWhole(trait, theirs) &&
      !same(
        theirs,
        untracked(() => own.value),
      )
    )
      own.value = theirs;
  };
  pull();
  listen(model, `change:${trait}`, pull, signal);
  watch(signal, () => {
    const mine = own.value;
    untracked(() => {
      if (same(model.get(trait), mine) || !isWhole(trait, mine)) return;
      model.set(trait, mine);
      try {
        model.save_changes();
      } catch {
        // The comm is gone: the client says so, the selection goes on in the view.
      }
    });
  });
}

export function connect(model: Model, store: Signals, signal: AbortSignal): void {
  const shared = sharedOf(store);
  for (const trait of TRAITS) sync(model, trait, shared[trait], signal);
}

function render({ model, el, signal }: RenderProps<Traits>): () => void {
  // Older hosts give no signal, they call what is returned.
  const end = new AbortController();
  const life = signal ? AbortSignal.any([signal, end.signal]) : end.signal;
  const store = new Store();
  const describe = (): void => {
    const facts = model.get("facts");
    if (facts?.kind) store.facts.value = facts as CacheFacts; // Python's, whole or empty
  };
  describe();
  listen(
    model,
    "change:facts",
    () => {
      describe();
      store.described.value += 1; // what the pictures were made of has changed, such as where prompts end
    },
    life,
  );
  const opened = new Opened(transportOver(model, el), life);
  const open = (): void => opened.put(model.get("opening") ?? {});
  open();
  listen(model, "change:opening", open, life);
  const transport = new Recorder(opened, store, life);
  connect(model, store, life);
  const client = new Client(transport, life);
  const view = tellPresence(transport, life);
  followKernel(el, store, client, view, life);
  mountPanel(el, store, client, life);
  answerForPictures(el, transport, life);
  return () => end.abort();
}

export default { render };

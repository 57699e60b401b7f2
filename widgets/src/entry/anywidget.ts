// Entry for anywidget hosts: a transport over the model's custom messages, and the synced traits both ways.

import type { AnyModel, RenderProps } from "@anywidget/types";
import { untracked } from "@preact/signals-core";
import { watch } from "../base/lifetime";
import { followKernel } from "../hosts/inline-standing";
import { mountPanel } from "../panel";
import { Opened, type Opening } from "../snapshot/prefetched";
import { tellPresence } from "../snapshot/presence";
import { answerForPictures, Recorder } from "../snapshot/recorder";
import {
  type Norm,
  type Padding,
  type Presentation,
  type Ranking,
  type Score,
  Store,
  type Synced,
  type Tab,
  type Weighting,
} from "../state/store";
import type { Position } from "../state/target";
import { isSet } from "../state/target";
import { Client, type Transport } from "../wire/client";
import type { CacheFacts, Target } from "../wire/protocol.gen";

/** The traits of py_backend/residscope/hosts/panel.py that are shared with the views. */
export interface Traits {
  cache_name: string;
  prompt: number | null;
  position: Position;
  heads: string[];
  norm: Norm;
  wire_target: Target;
  top_k: number;
  ranking: Ranking;
  layer: number | null;
  weighting: Weighting;
  presentation: Presentation;
  score: Score | null;
  tab: Tab;
  padding: Padding;
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
function sync<K extends keyof Traits>(
  model: Model,
  trait: K,
  own: { value: Traits[K] },
  signal: AbortSignal,
  valid: (value: Traits[K]) => boolean = () => true,
): void {
  const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);
  const pull = (): void => {
    const theirs = model.get(trait);
    if (
      theirs !== undefined &&
      valid(theirs) &&
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
      if (same(model.get(trait), mine) || !valid(mine)) return;
      model.set(trait, mine);
      try {
        model.save_changes();
      } catch {
        // The comm is gone: the client says so, the selection goes on in the view.
      }
    });
  });
}

export function connect(model: Model, store: Synced, signal: AbortSignal): void {
  sync(model, "cache_name", store.cacheName, signal);
  sync(model, "prompt", store.prompt, signal);
  sync(model, "position", store.position, signal);
  sync(model, "heads", store.heads, signal);
  sync(model, "norm", store.norm, signal);
  // An empty one is Python's before it has chosen: not a target, and never sent back.
  sync(model, "wire_target", store.target, signal, (target) => Array.isArray(target?.contrasts) && isSet(target));
  sync(model, "top_k", store.topK, signal);
  sync(model, "ranking", store.ranking, signal);
  sync(model, "layer", store.layer, signal);
  sync(model, "weighting", store.weighting, signal);
  sync(model, "presentation", store.presentation, signal);
  sync(model, "score", store.score, signal);
  sync(model, "tab", store.tab, signal);
  sync(model, "padding", store.padding, signal);
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

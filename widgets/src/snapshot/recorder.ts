// Records the last replies of a live panel, so that a host can store what is on screen when the notebook is saved.

import { untracked } from "@preact/signals-core";
import { cards, charts, choices, ofTheTab, sceneOf, withinTheTab } from "../state/questions";
import { shownOf } from "../state/selection";
import type { Store } from "../state/store";
import { NOTHING, targetKey } from "../state/target";
import type { Ask, Transport } from "../wire/client";
import { DEFAULTS } from "../wire/protocol.check.gen";
import type { Answer, CacheRef, Question, Target } from "../wire/protocol.gen";
import { Relay } from "../wire/relay";
import { isRecorded } from "./requests";
import { type Entry, keyOf, PINNED, packed, type Snapshot } from "./snapshot";

/** A host requests a panel's snapshot by this event on the panel's root; `detail.put` receives it. */
export const SNAPSHOT_EVENT = "residscope:snapshot";
export interface SnapshotRequest {
  put: (snapshot: Snapshot) => void;
}

interface Kept {
  ask: Ask;
  /** The cache that the request was about, if the kernel has several. */
  cache: string;
  reply: NonNullable<Answer["reply"]>;
  buffers: DataView[];
  size: number;
}
/** The most bytes of all recorded replies, and of one snapshot. */
const MOST_RECORDED = 4_000_000;
const MOST = 1_000_000;

/** A transport that records what another one receives. */
export class Recorder extends Relay {
  readonly #asked = new Map<string, { ask: Ask; cache: string }>();
  readonly #kept = new Map<string, Kept>();
  #size = 0;

  constructor(
    transport: Transport,
    readonly store: Store,
    signal: AbortSignal,
  ) {
    super(transport);
    transport.onMessage((message, buffers) => this.#note(message as Answer, buffers), signal);
  }

  override send(question: Question, buffers?: ArrayBuffer[]): void {
    if (isRecorded(question.ask.kind))
      this.#asked.set(question.id, { ask: question.ask, cache: nameOf(question.cache) });
    super.send(question, buffers);
  }

  /** What is on screen; null while a reply is missing. */
  picture(): Snapshot | null {
    const { heads = [], ...rest } = shownOf(this.store);
    const selection = { ...rest, heads: heads.slice(0, PINNED) };
    const lacks = heads.length > PINNED ? [`${heads.length - PINNED} of its ${heads.length} pinned heads`] : [];
    const keys = this.#onScreen();
    const shown = [...this.#kept.values()].reverse().filter((kept) => this.#isShown(kept, keys));
    const wanted = charts(this.store.shown).map((chart) => keyFor(chart, this.store.padding.peek()));
    const needed = wanted.map((key) => shown.find(({ ask }) => keyFor(ask) === key));
    if (needed.includes(undefined)) return null;
    let room = MOST;
    const fits = [...needed.flatMap((kept) => kept ?? []), ...shown.filter((kept) => !needed.includes(kept))].filter(
      ({ size }) => size <= room && ((room -= size), true),
    );
    const entries = fits.map(({ ask, reply, buffers }): Entry => {
      const { target, ...about } = ask as Ask & { target?: Target };
      const other = target && targetKey(target) !== targetKey(selection.target) ? { target } : {};
      return {
        ask: { ...about, ...other } as Entry["ask"],
        reply,
        ...(buffers.length > 0 ? { buffers: buffers.map(packed) } : {}),
      };
    });
    const { cacheName, preview } = this.store;
    return {
      name: cacheName.peek(),
      selection,
      preview: preview.peek(),
      saved: new Date().toISOString(),
      defaults: {},
      lacks,
      entries,
    };
  }

  #note({ id, reply }: Answer, buffers: DataView[]): void {
    const asked = this.#asked.get(id);
    if (!asked || reply?.kind === "working") return;
    this.#asked.delete(id);
    if (!reply) return;
    const { ask, cache } = asked;
    const key = JSON.stringify([ask, cache]);
    // The size as base64 and JSON; most of it is short labels.
    const size = buffers.reduce((sum, buffer) => sum + (buffer.byteLength * 4) / 3, JSON.stringify(reply).length + 200);
    this.#drop(key);
    if (size > MOST) return;
    this.#kept.set(key, { ask, cache, reply, buffers, size });
    this.#size += size;
    if (this.#size <= MOST_RECORDED) return;
    const keys = this.#onScreen();
    for (const [old, kept] of this.#kept) {
      if (this.#size <= MOST_RECORDED) break;
      if (!this.#isShown(kept, keys)) this.#drop(old);
    }
  }

  #drop(key: string): void {
    this.#size -= this.#kept.get(key)?.size ?? 0;
    this.#kept.delete(key);
  }

  /** The keys of the requests that the views send for the present selection. */
  #onScreen(): Set<string> {
    return untracked(() => {
      const scene = sceneOf(this.store);
      if (!scene) return new Set();
      const { shown } = scene;
      const { preview } = this.store;
      const heads = preview.value === null ? shown.heads : [...shown.heads, preview.value];
      const maps = cards(scene, heads);
      const coarse = maps.map((ask) => ({ ...ask, pool: "mean" }) as Ask); // the view may have been set to this
      const asks = [
        ...charts(shown),
        ...choices(shown),
        ...maps,
        ...coarse,
        ...ofTheTab(scene),
        ...withinTheTab(scene),
      ];
      return new Set(asks.map((ask) => keyFor(ask, shown.padding)));
    });
  }

  #isShown({ ask, cache }: Kept, keys: Set<string>): boolean {
    return cache === nameOf(this.store.ref.peek()) && keys.has(keyFor(ask));
  }
}

/** Equivalent requests have the same key. In it, a target is the ids of its tokens. */
function keyFor(ask: Ask, padding: Ask["padding"] = ask.padding ?? "found"): string {
  const { target, ...about } = { target: NOTHING, ...ask, padding };
  return `${targetKey(target)} ${keyOf(about, { selection: { target: NOTHING }, defaults: DEFAULTS })}`;
}

const nameOf = (ref: CacheRef | null | undefined): string => (ref ? `${ref.id} ${ref.state}` : "");

/** Answers the snapshot events of hosts. */
export function answerSnapshotRequests(el: HTMLElement, recorder: Recorder, signal: AbortSignal): void {
  el.addEventListener(
    SNAPSHOT_EVENT,
    (event) => {
      const picture = recorder.picture();
      if (picture) (event as CustomEvent<SnapshotRequest>).detail.put(picture);
    },
    { signal, capture: true },
  ); // capture, because the event does not bubble
}

// Remembers the last answers of a live panel, so that a host can keep what is on screen when the notebook is saved.

import { untracked } from "@preact/signals-core";
import { cards, charts, choices, ofTheTab, sceneOf, withinTheTab } from "../state/questions";
import { shownOf } from "../state/selection";
import type { Store } from "../state/store";
import { NOTHING, targetKey } from "../state/target";
import type { Ask, Transport } from "../wire/client";
import { DEFAULTS } from "../wire/protocol.check.gen";
import type { Answer, CacheRef, Question } from "../wire/protocol.gen";
import { Relay } from "../wire/relay";
import { isRecorded } from "./requests";
import { type Entry, keyOf, PINNED, packed, type Snapshot } from "./snapshot";

/** A panel's root is asked for its picture by this event; `detail.put` takes it. */
export const SNAPSHOT_EVENT = "residscope:snapshot";
export interface SnapshotRequest {
  put: (snapshot: Snapshot) => void;
}

interface Kept {
  ask: Ask;
  /** Which cache it was asked of, where a kernel has several. */
  cache: string;
  reply: NonNullable<Answer["reply"]>;
  buffers: DataView[];
  size: number;
}
/** Bytes: of all that is remembered, and of a picture that is given away. */
const REMEMBERED = 4_000_000;
const MOST = 1_000_000;
/** A transport that remembers what came over another one. */
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

  /** What is on screen; null while it is not whole. */
  picture(): Snapshot | null {
    const { heads = [], ...rest } = shownOf(this.store);
    const selection = { ...rest, heads: heads.slice(0, PINNED) };
    const lacks = heads.length > PINNED ? [`${heads.length - PINNED} of its ${heads.length} pinned heads`] : [];
    const keys = this.#onScreen();
    const shown = [...this.#kept.values()].reverse().filter((kept) => this.#isShown(kept, keys));
    const wanted = charts(this.store.shown).map((chart) => keyed(chart, this.store.padding.peek()));
    const found = wanted.map((key) => shown.find(({ ask }) => keyed(ask) === key));
    if (found.includes(undefined)) return null;
    let room = MOST;
    const fits = [...found.flatMap((kept) => kept ?? []), ...shown.filter((kept) => !found.includes(kept))].filter(
      ({ size }) => size <= room && ((room -= size), true),
    );
    const entries = fits.map(({ ask, reply, buffers }): Entry => {
      const { target: _, ...about } = ask as Ask & { target?: unknown };
      return { ask: about, reply, ...(buffers.length > 0 ? { buffers: buffers.map(packed) } : {}) };
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
    // As base64 and JSON; labels of a few letters are most of it.
    const size = buffers.reduce((sum, buffer) => sum + (buffer.byteLength * 4) / 3, JSON.stringify(reply).length + 200);
    this.#drop(key);
    if (size > MOST) return;
    this.#kept.set(key, { ask, cache, reply, buffers, size });
    this.#size += size;
    if (this.#size <= REMEMBERED) return;
    const keys = this.#onScreen();
    for (const [old, kept] of this.#kept) {
      if (this.#size <= REMEMBERED) break;
      if (!this.#isShown(kept, keys)) this.#drop(old);
    }
  }

  #drop(key: string): void {
    this.#size -= this.#kept.get(key)?.size ?? 0;
    this.#kept.delete(key);
  }

  /** What the views ask of what is selected now. */
  #onScreen(): Set<string> {
    return untracked(() => {
      const scene = sceneOf(this.store);
      if (!scene) return new Set();
      const { shown } = scene;
      const { preview } = this.store;
      const heads = preview.value === null ? shown.heads : [...shown.heads, preview.value];
      const maps = cards(scene, heads);
      const coarse = maps.map((ask) => ({ ...ask, pool: "mean" }) as Ask); // as the view may have been told to
      const asks = [
        ...charts(shown),
        ...choices(shown),
        ...maps,
        ...coarse,
        ...ofTheTab(scene),
        ...withinTheTab(scene),
      ];
      return new Set(asks.map((ask) => keyed(ask, shown.padding)));
    });
  }

  #isShown({ ask, cache }: Kept, keys: Set<string>): boolean {
    return cache === nameOf(this.store.ref.peek()) && keys.has(keyed(ask));
  }
}

/** Two requests that mean the same have the same key. A target is known by its tokens' ids. */
function keyed(ask: Ask, padding: Ask["padding"] = ask.padding ?? "found"): string {
  const { target, ...about } = { target: NOTHING, ...ask, padding };
  return `${targetKey(target)} ${keyOf(about, { selection: { target: NOTHING }, defaults: DEFAULTS })}`;
}

const nameOf = (ref: CacheRef | null | undefined): string => (ref ? `${ref.id} ${ref.state}` : "");

/** Gives the picture to whoever asks for it. */
export function answerForPictures(el: HTMLElement, recorder: Recorder, signal: AbortSignal): void {
  el.addEventListener(
    SNAPSHOT_EVENT,
    (event) => {
      const picture = recorder.picture();
      if (picture) (event as CustomEvent<SnapshotRequest>).detail.put(picture);
    },
    { signal, capture: true },
  ); // the event is the root's own, and does not bubble
}

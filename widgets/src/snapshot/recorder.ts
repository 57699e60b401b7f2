// Records the last replies of a live panel, so that a host can store the picture on screen with the notebook.

import { untracked } from "@preact/signals-core";
import { sceneOf } from "../state/scene";
import { shownOf } from "../state/selection";
import type { Store } from "../state/store";
import { NOTHING, targetKey } from "../state/target";
import { cards, charts, choices } from "../state/view-questions";
import { ofTheTab, withinTheTab } from "../views/tabs";
import type { Ask, Transport } from "../wire/client";
import { DEFAULTS } from "../wire/protocol.check.gen";
import type { Answer, CacheRef, Question, Target } from "../wire/protocol.gen";
import { Relay } from "../wire/relay";
import { isRecorded } from "./requests";
import { type Entry, keyOf, PINNED, packed, type Snapshot } from "./snapshot";

/** A host dispatches this event on the panel's root to get a snapshot. The panel gives it to `detail.put`. */
export const SNAPSHOT_EVENT = "residscope:snapshot";
export interface SnapshotRequest {
  put: (snapshot: Snapshot) => void;
}

interface Recorded {
  ask: Ask;
  /** The id and state of the request's cache; empty in an inline panel. */
  cache: string;
  reply: NonNullable<Answer["reply"]>;
  buffers: DataView[];
  size: number;
}
/** Limits for all recorded replies, and for one snapshot. */
const MAX_RECORDED_BYTES = 4_000_000;
const MAX_SNAPSHOT_BYTES = 1_000_000;

/** A transport that sends and receives through `transport`, and records the replies. */
export class Recorder extends Relay {
  readonly #asked = new Map<string, { ask: Ask; cache: string }>();
  readonly #recorded = new Map<string, Recorded>();
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
      this.#asked.set(question.id, { ask: question.ask, cache: cacheKey(question.cache) });
    super.send(question, buffers);
  }

  /** The snapshot of the screen; null while a needed reply is missing. */
  picture(): Snapshot | null {
    const { heads = [], ...rest } = shownOf(this.store);
    const selection = { ...rest, heads: heads.slice(0, PINNED) };
    const lacks = heads.length > PINNED ? [`${heads.length - PINNED} of its ${heads.length} pinned heads`] : [];
    const keys = this.#onScreen();
    const shown = [...this.#recorded.values()].reverse().filter((kept) => this.#isShown(kept, keys));
    const chartKeys = charts(this.store.shown).map((chart) => keyFor(chart, this.store.padding.peek()));
    const needed = chartKeys.map((key) => shown.find(({ ask }) => keyFor(ask) === key));
    if (needed.includes(undefined)) return null;
    let remaining = MAX_SNAPSHOT_BYTES;
    const included = [
      ...needed.flatMap((kept) => kept ?? []),
      ...shown.filter((kept) => !needed.includes(kept)),
    ].filter(({ size }) => size <= remaining && ((remaining -= size), true));
    const entries = included.map(({ ask, reply, buffers }): Entry => {
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

  #note({ id, reply: received }: Answer, buffers: DataView[]): void {
    const request = this.#asked.get(id);
    if (!request || received?.kind === "working") return;
    this.#asked.delete(id);
    if (!received) return;
    const { cache } = request;
    const ask = asDeclared(request.ask);
    const isOpen = received.kind === "effects" && received.state === "waiting";
    const reply = isOpen ? { ...received, state: "stopped" as const, turn: null } : received;
    const key = JSON.stringify([ask, cache]);
    // An estimate of the size as base64 and JSON.
    const size = buffers.reduce((sum, buffer) => sum + (buffer.byteLength * 4) / 3, JSON.stringify(reply).length + 200);
    this.#drop(key);
    if (size > MAX_SNAPSHOT_BYTES) return;
    this.#recorded.set(key, { ask, cache, reply, buffers, size });
    this.#size += size;
    if (this.#size <= MAX_RECORDED_BYTES) return;
    const keys = this.#onScreen();
    for (const [old, kept] of this.#recorded) {
      if (this.#size <= MAX_RECORDED_BYTES) break;
      if (!this.#isShown(kept, keys)) this.#drop(old);
    }
  }

  #drop(key: string): void {
    this.#size -= this.#recorded.get(key)?.size ?? 0;
    this.#recorded.delete(key);
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
      // The map of a long prompt is drawn in blocks. A block shows its value farthest from zero or, if the user chose
      // this, its mean. Both requests count as on screen.
      const coarse = maps.map((ask) => ({ ...ask, pool: "mean" }) as Ask);
      const asks = [
        ...charts(shown),
        ...choices(scene),
        ...maps,
        ...coarse,
        ...ofTheTab(scene),
        ...withinTheTab(scene),
      ];
      return new Set(asks.map((ask) => keyFor(ask, shown.padding)));
    });
  }

  #isShown({ ask, cache }: Recorded, keys: Set<string>): boolean {
    return cache === cacheKey(this.store.ref.peek()) && keys.has(keyFor(ask));
  }
}

/**
 * A request for effects without its fields `measure` and `stop`, as in `state/questions.ts`. These fields only control
 * the measuring. The picture does not depend on them.
 */
function asDeclared(ask: Ask): Ask {
  if (ask.kind !== "effects") return ask;
  const { measure: _, stop: __, ...declared } = ask;
  return declared;
}

/** Equivalent requests have the same key. The key has only the token ids of a target, not the tokens' texts. */
function keyFor(ask: Ask, padding: Ask["padding"] = ask.padding ?? "found"): string {
  const { target, ...about } = { target: NOTHING, ...ask, padding };
  return `${targetKey(target)} ${keyOf(about, { selection: { target: NOTHING }, defaults: DEFAULTS })}`;
}

const cacheKey = (ref: CacheRef | null | undefined): string => (ref ? `${ref.id} ${ref.state}` : "");

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

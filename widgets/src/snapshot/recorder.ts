// Remembers the last answers of a live panel, so that a host can keep what is on screen when the notebook is saved.

import { shownOf } from "../state/selection";
import type { Store } from "../state/store";
import { targetKey } from "../state/target";
import type { Ask, Transport } from "../wire/client";
import type { Answer, CacheRef, Question } from "../wire/protocol.gen";
import { Relay } from "../wire/relay";
import { CHARTS, chartOf, type Entry, isRecorded, PINNED, packed, type Snapshot } from "./snapshot";

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
    const shown = [...this.#kept.values()].reverse().filter((kept) => this.#isShown(kept));
    const charts = CHARTS.map((what) =>
      shown.find(
        ({ ask }) => what === chartOf(ask) && (!("prompt" in ask) || (ask.prompt ?? null) === selection.prompt),
      ),
    );
    if (charts.includes(undefined)) return null;
    let room = MOST;
    const fits = [...charts.flatMap((kept) => kept ?? []), ...shown.filter((kept) => !charts.includes(kept))].filter(
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
    for (const [old, kept] of this.#kept) {
      if (this.#size <= REMEMBERED) break;
      if (!this.#isShown(kept)) this.#drop(old);
    }
  }

  #drop(key: string): void {
    this.#size -= this.#kept.get(key)?.size ?? 0;
    this.#kept.delete(key);
  }

  /** Whether the views show this now. */
  #isShown({ ask, cache }: Kept): boolean {
    if (cache !== nameOf(this.store.ref.peek())) return false;
    if ((ask.padding ?? "found") !== this.store.padding.peek()) return false;
    const {
      prompt,
      position,
      target,
      weighting,
      presentation,
      tab,
      score,
      ranking,
      layer,
      norm,
      heads,
      preview,
      mapBy,
      destination,
    } = shownNow(this.store);
    // The view of all prompts has the mean's figures, and the tokens of all.
    const spread = tab === "prompts" && (ask.kind === "tokens" || (ask.kind === "attribute" && ask.prompt === null));
    if ("prompt" in ask && (ask.prompt ?? null) !== prompt && !spread) return false;
    if ("position" in ask && (ask.position ?? "last") !== position) return false;
    if ("weighting" in ask && ask.weighting !== weighting) return false;
    if ("target" in ask && targetKey(ask.target) !== targetKey(target)) return false;
    switch (ask.kind) {
      case "attribute":
        return ask.by !== "accumulated" || ask.norm === norm;
      // Of a long prompt's single lines the destination's, which stands below the matrix.
      case "attention":
        return (
          [...heads, preview].includes(`L${ask.layer}H${ask.head}`) &&
          !ask.columns &&
          (!ask.rows || ask.rows.start === destination)
        );
      case "scores":
        return ask.score === score;
      case "neurons":
        return ranking === "neurons" && (ask.layer ?? null) === layer;
      case "thumbnails":
      case "blend":
        return tab === "attention" && presentation !== "matrix";
      case "positions":
        return tab === "positions" && ask.by === mapBy;
      case "token-lens":
        return tab === "token-lens";
      case "describe":
      case "tokens":
      case "suggest":
      case "check":
      case "target":
      case "answers":
      case "resolve":
      case "code":
      case "page":
      case "caches":
      case "presence":
      case "give-up":
        return true;
    }
  }
}

const nameOf = (ref: CacheRef | null | undefined): string => (ref ? `${ref.id} ${ref.state}` : "");

function shownNow(store: Store) {
  return {
    prompt: store.prompt.peek(),
    position: store.chosenPosition.peek(),
    target: store.target.peek(),
    weighting: store.weighting.peek(),
    presentation: store.presentation.peek(),
    tab: store.tab.peek(),
    score: store.score.peek(),
    ranking: store.ranking.peek(),
    layer: store.layer.peek(),
    norm: store.norm.peek(),
    heads: store.heads.peek(),
    preview: store.preview.peek(),
    mapBy: store.mapBy.peek(),
    destination: store.destination.peek(),
  };
}

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

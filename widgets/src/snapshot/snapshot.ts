// A snapshot contains recorded requests and their replies, as plain data. A transport replays them. No request depends
// on an earlier one, so the snapshot can replace the kernel for these requests.
import { signal as state } from "@preact/signals-core";
import { targetKey } from "../state/target";
import type { Ask, Transport } from "../wire/client";
import type { Answer, Question, Shown, Target } from "../wire/protocol.gen";

/** A request with its reply or failure. A request without `target` has the selection's target. Buffers are base64. */
export interface Entry {
  ask: Ask | Omit<Ask, "target">;
  reply?: Answer["reply"];
  failure?: Answer["failure"];
  buffers?: string[];
}
/** Written by py_backend/residscope/export/snapshot.py, and by recorder.ts. */
export interface Snapshot {
  name: string;
  selection: Shown;
  /** The head in the preview slot. */
  preview?: string | null;
  /** When it was made, as an ISO date. */
  saved: string;
  /** For each kind of request, the values of the fields that a request may leave out. */
  defaults: Record<string, Record<string, unknown>>;
  /** Names of the data that was left out, because the snapshot would be too large or take too long. */
  lacks: string[];
  entries: Entry[];
}

/** A snapshot has at most this many pinned heads. */
export const PINNED = 64;

/** What a chart's request is called in messages: its kind, and for "attribute" also its rows. */
export const chartOf = (ask: Entry["ask"]): string =>
  ask.kind === "attribute" && "by" in ask ? `attribute ${ask.by}` : ask.kind;

/** The key of a request. Equivalent requests have the same key, with or without fields that have default values. */
export function keyOf(ask: Entry["ask"], { selection, defaults }: Pick<Snapshot, "selection" | "defaults">): string {
  const { target, ...rest } = ask as { target?: Target } & Record<string, unknown>;
  const own = targetKey(selection.target);
  const key = target ? targetKey(target) : own;
  return (key === own ? "" : `${key} `) + JSON.stringify(withoutDefaults(rest, defaults[ask.kind]));
}

/** The same value with sorted keys, without fields that are null or have their default. */
function withoutDefaults(value: unknown, byDefault: unknown): unknown {
  if (Array.isArray(value)) return value.map((item) => withoutDefaults(item, undefined));
  if (typeof value !== "object" || value === null) return value;
  const defaults = (typeof byDefault === "object" ? byDefault : null) as Record<string, unknown> | null;
  const fields = Object.entries(value).flatMap(([name, field]) => {
    if (field === null || field === undefined) return [];
    const byDefault = defaults?.[name];
    const [own, other] = [withoutDefaults(field, byDefault), withoutDefaults(byDefault, byDefault)];
    return JSON.stringify(own) === JSON.stringify(other) ? [] : [[name, own] as const];
  });
  return Object.fromEntries(fields.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Answers from a snapshot. If a request is not in it, `onMissing` is called before the failure is sent. */
export class Replay implements Transport {
  readonly #entries: Map<string, Entry>;
  readonly #listeners = new Set<(message: unknown, buffers: DataView[]) => void>();

  constructor(
    readonly snapshot: Snapshot,
    readonly refusal: (ask: Ask) => string,
    readonly onMissing: (ask: Ask) => void = () => undefined,
  ) {
    this.#entries = new Map(snapshot.entries.map((entry) => [keyOf(entry.ask, snapshot), entry]));
  }

  /** Always true, so that no view requests data in advance. A snapshot would report such data as missing. */
  readonly occupied = state(true);

  send({ id, ask }: Question): void {
    const entry = this.#entries.get(keyOf(ask, this.snapshot));
    if (!entry) this.onMissing(ask);
    queueMicrotask(() => {
      const { reply, failure } = entry ?? { failure: { code: "not-saved", message: this.refusal(ask) } };
      const answer: Answer = { id, ...(reply ? { reply } : { failure: failure ?? null }) };
      for (const listener of [...this.#listeners]) listener(answer, (entry?.buffers ?? []).map(unpacked));
    });
  }

  onMessage(listener: (message: unknown, buffers: DataView[]) => void, signal: AbortSignal): void {
    this.#listeners.add(listener);
    signal.addEventListener("abort", () => this.#listeners.delete(listener), { once: true });
  }
}

/** The bytes as base64. */
export function packed(buffer: DataView): string {
  const bytes = new Uint8Array(buffer.buffer as ArrayBuffer, buffer.byteOffset, buffer.byteLength);
  let letters = "";
  for (let i = 0; i < bytes.length; i += 0x8000) letters += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(letters);
}

/** The bytes of a base64 text. */
export function unpacked(base64: string): DataView<ArrayBuffer> {
  return new DataView(Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)).buffer);
}

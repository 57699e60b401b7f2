// A record of what was asked and answered, as plain data, and a transport that answers from it. Requests are stateless,
// so it is as good as a kernel for what it holds.
import { signal as state } from "@preact/signals-core";
import type { Ask, Transport } from "../wire/client";
import type { Answer, Question, Shown } from "../wire/protocol.gen";

/** A request and what came back. Its `target` is left out where it is the selection's. Buffers are base64. */
export interface Entry {
  ask: Ask | Omit<Ask, "target">;
  reply?: Answer["reply"];
  failure?: Answer["failure"];
  buffers?: string[];
}
/** What py_backend/residscope/export/snapshot.py writes, and recorder.ts. */
export interface Snapshot {
  name: string;
  selection: Shown;
  /** The head in the preview slot. */
  preview?: string | null;
  /** When it was made, as an ISO date. */
  saved: string;
  /** What a request means by what it leaves out, by its kind. */
  defaults: Record<string, Record<string, unknown>>;
  /** What it would hold, too, if there were room: in words. */
  lacks: string[];
  entries: Entry[];
}

/** So many pinned heads are in a picture. */
export const PINNED = 64;

/** What a request of the charts is called. */
export const chartOf = (ask: Entry["ask"]): string =>
  ask.kind === "attribute" && "by" in ask ? `attribute ${ask.by}` : ask.kind;

/** Two requests that mean the same have the same key, however much of them is spelled out. */
export function keyOf(ask: Entry["ask"], { selection, defaults }: Pick<Snapshot, "selection" | "defaults">): string {
  return JSON.stringify(plain(ask, { target: selection.target, ...defaults[ask.kind] }));
}

/** Keys in order; without what is null, or as usual. */
function plain(value: unknown, usual: unknown): unknown {
  if (Array.isArray(value)) return value.map((one) => plain(one, undefined));
  if (typeof value !== "object" || value === null) return value;
  const usually = (typeof usual === "object" ? usual : null) as Record<string, unknown> | null;
  const fields = Object.entries(value).flatMap(([name, of]) => {
    if (of === null || of === undefined) return [];
    const [is, other] = [plain(of, usually?.[name]), plain(usually?.[name], usually?.[name])];
    return JSON.stringify(is) === JSON.stringify(other) ? [] : [[name, is] as const];
  });
  return Object.fromEntries(fields.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Answers from the record; `missed` hears of each request that is not in it, before anything else happens. */
export class Replay implements Transport {
  readonly #entries: Map<string, Entry>;
  readonly #listeners = new Set<(message: unknown, buffers: DataView[]) => void>();

  constructor(
    readonly snapshot: Snapshot,
    readonly refusal: (ask: Ask) => string,
    readonly missed: (ask: Ask) => void = () => undefined,
  ) {
    this.#entries = new Map(snapshot.entries.map((entry) => [keyOf(entry.ask, snapshot), entry]));
  }

  /** What nobody has asked for is not missed, either. */
  readonly occupied = state(true);

  send({ id, ask }: Question): void {
    const entry = this.#entries.get(keyOf(ask, this.snapshot));
    if (!entry) this.missed(ask);
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

export function packed(buffer: DataView): string {
  const bytes = new Uint8Array(buffer.buffer as ArrayBuffer, buffer.byteOffset, buffer.byteLength);
  let letters = "";
  for (let i = 0; i < bytes.length; i += 0x8000) letters += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(letters);
}

export function unpacked(base64: string): DataView<ArrayBuffer> {
  return new DataView(Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)).buffer);
}

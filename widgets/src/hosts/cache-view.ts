// One open view of one cache of a kernel: the panel over a link, what has become of its cache, and how to take the new
// one.
import { batch, computed, type ReadonlySignal, type Signal, signal as state, untracked } from "@preact/signals-core";
import { coded } from "../base/legible";
import { child, later, watch } from "../base/lifetime";
import { mountPanel } from "../panel";
import { Recorder } from "../snapshot/recorder";
import type { Snapshot } from "../snapshot/snapshot";
import { fitting, type Selection, select, selectionOf } from "../state/selection";
import { type Standing, Store } from "../state/store";
import { NOTHING, targetKey } from "../state/target";
import { Client, RequestFailed } from "../wire/client";
import type { CacheRef, CacheRow, Target } from "../wire/protocol.gen";
import type { Caches } from "./caches";

/** What has become of a cache that is in view. */
export type Fate = "same" | "changed" | "weights" | "rebound" | "gone" | "restarted" | "waiting";

/** Taking a new cache is done in less, mostly: then nothing need be said of it. */
const MOMENT_MS = 400;

const WORDS: Record<Exclude<Fate, "same">, () => string> = {
  changed: () => "was changed in place since. The last picture stays.",
  weights: () => "is as it was, but its model’s weights have changed since: new figures mix both.",
  rebound: () => "is another cache now. The last picture stays.",
  gone: () => "was deleted: no variable leads to it. The last picture stays.",
  restarted: () => "was lost when the kernel restarted. The last picture stays.",
  waiting: () => "cannot be asked now: its kernel does not answer. The last picture stays.",
};

export class Inspection {
  readonly store = new Store();
  readonly #row = state<CacheRow | null>(null);
  readonly #end: AbortController;
  readonly #client: Client;
  readonly #recorder: Recorder | null;
  readonly #parent: HTMLElement;
  #mounted = false;
  #taking = false;
  #ref: CacheRef | null = null;
  #kernel = "";
  #default = "";
  #wanted: Selection | null;
  readonly #name: Signal<string>;
  /** Whether taking the new cache of the followed variable takes its time. */
  readonly #slow = state(false);

  constructor(
    parent: HTMLElement,
    readonly caches: Caches,
    name: string,
    signal: AbortSignal,
    selection: Selection | null = null,
    /** Whether its picture is wanted. */
    records = false,
  ) {
    this.#end = child(signal);
    this.#recorder = records ? new Recorder(caches.link, this.store, this.#end.signal) : null;
    this.#client = new Client(this.#recorder ?? caches.link, this.#end.signal, () => this.#ref);
    this.#parent = parent;
    this.#wanted = selection;
    this.#name = state(name);
    watch(this.#end.signal, () => void (this.store.cacheName.value = this.name));
    // Its variable leads to another cache, or nowhere, while it lives on under another name: the view is known by that.
    watch(this.#end.signal, () => {
      if (this.#coming.value) return; // it stays with its variable
      const row = this.#row.value;
      const now = row && this.caches.kernel.value === this.#kernel ? this.caches.find(row.ref.id) : undefined;
      const [other] = now?.names ?? [];
      if (now && other !== undefined && !now.names.includes(this.name)) this.#name.value = other;
    });
    let pause: AbortController | null = null;
    watch(this.#end.signal, () => {
      const next = this.#coming.value;
      pause?.abort();
      pause = null;
      untracked(() => {
        this.#slow.value = false;
        if (!next) return;
        pause = child(this.#end.signal);
        later(MOMENT_MS, pause.signal, () => (this.#slow.value = true));
        void this.take(next);
      });
    });
    watch(this.#end.signal, () => {
      if (this.store.outdated.value > 0) untracked(() => void this.caches.refresh());
    });
    watch(this.#end.signal, () => {
      const standing = this.#standing();
      untracked(() => (this.store.standing.value = standing));
    });
  }

  /** The variable it is known by. */
  get name(): string {
    return this.#name.value;
  }

  /** The cache in view, as it was when it was taken; null before the first. */
  get row(): ReadonlySignal<CacheRow | null> {
    return this.#row;
  }

  readonly selection = computed(() => selectionOf(this.store, (target) => targetKey(target) === this.#default));

  /**
   * Whether nobody answers, or nobody has said since what caches there are: the rows may be of a kernel that is gone.
   */
  readonly #isAway = computed(() => this.#client.lost.value || !this.caches.fresh.value);

  readonly fate: ReadonlySignal<Fate> = computed(() => {
    const row = this.#row.value;
    if (!row) return "same";
    if (this.caches.kernel.value !== this.#kernel) return "restarted";
    // Of a kernel that does not answer, or was not asked yet, nothing else is known.
    if (this.#isAway.value) return "waiting";
    const now = this.caches.find(row.ref.id);
    if (!now) return this.caches.named(this.name) ? "rebound" : "gone";
    const [then, is] = [row.ref.state.split("."), now.ref.state.split(".")];
    return then[0] !== is[0] ? "changed" : then[1] !== is[1] ? "weights" : "same";
  });

  /** What one would see by taking the new one; null where there is none, or it is in view. */
  readonly successor: ReadonlySignal<CacheRow | null> = computed(() => {
    if (this.fate.value === "same" || this.fate.value === "waiting") return null;
    const row = this.#row.value;
    return (
      this.caches.named(this.name) ??
      (row && this.fate.value !== "restarted" ? this.caches.find(row.ref.id) : null) ??
      null
    );
  });

  /**
   * The new cache of the variable that is followed, on its way into view; null where it is there, or none is followed.
   */
  readonly #coming: ReadonlySignal<CacheRow | null> = computed(() => {
    const variable = this.store.follow.value;
    const row = this.#row.value;
    const next = variable === null || !row || this.#isAway.value ? undefined : this.caches.named(variable);
    if (!next || next.problem || !row) return null;
    const isNew = next.ref.id !== row.ref.id || this.caches.kernel.value !== this.#kernel;
    return isNew ? next : null;
  });

  /**
   * Show this cache, with what is selected as far as it fits. Until its default target is known the last picture stays.
   */
  async take(row: CacheRow): Promise<void> {
    const before = this.#row.peek();
    if (this.#taking && same(this.#ref, row.ref)) return; // a double click
    this.#ref = row.ref;
    this.#taking = true;
    const wanted = this.#wanted ?? this.selection.peek();
    const sameModel =
      !before || (before.model === row.model && before.layers === row.layers && before.heads === row.heads);
    const selection = fitting(sameModel ? wanted : { ...wanted, target: null }, row);
    const found = selection.target ? { target: selection.target, trouble: null } : await this.#choose(row);
    if (!found || this.#ref !== row.ref) return; // another one was taken meanwhile
    this.#taking = false;
    this.#wanted = null;
    batch(() => {
      this.#kernel = this.caches.kernel.peek();
      this.#row.value = row;
      const { follow } = selection;
      if (follow !== null && row.names.includes(follow)) this.#name.value = follow;
      this.store.ref.value = row.ref;
      this.store.problems.value = new Map(found.trouble ? [["target", found.trouble]] : []);
      select(this.store, { ...selection, target: found.target });
    });
    if (!this.#mounted && !this.#end.signal.aborted)
      mountPanel(this.#parent, this.store, this.#client, this.#end.signal);
    this.#mounted = true;
  }

  /** The model's own target, or why there is none; null where another cache is to be taken instead. */
  async #choose(row: CacheRow): Promise<{ target: Target; trouble: string | null } | null> {
    try {
      const answer = await this.#client.latest("target", { kind: "target" });
      if (!answer || this.#ref !== row.ref) return null;
      this.#default = targetKey(answer.reply.target);
      return { target: answer.reply.target, trouble: null };
    } catch (error) {
      if (!(error instanceof RequestFailed) || error.code === "closed" || this.#ref !== row.ref) return null;
      const { code, message } = error;
      if (code !== "lost" && code !== "gone" && code !== "changed") return { target: NOTHING, trouble: message };
      this.#taking = false;
      if (code === "lost")
        this.takeWhenListed(); // the kernel went in between: once it answers again
      else await this.#takeSuccessor(row);
      return null;
    }
  }

  /** It was bound again since it was listed: what stands under its name now is meant. */
  async #takeSuccessor(row: CacheRow): Promise<void> {
    await this.caches.refresh();
    const now = this.caches.named(this.name);
    if (now && !same(now.ref, row.ref) && this.#ref === row.ref) await this.take(now);
  }

  /**
   * Takes the cache of this name as soon as it is listed: a view that is opened again before its kernel has answered.
   */
  takeWhenListed(): void {
    const waiting = child(this.#end.signal);
    watch(waiting.signal, () => {
      const row = this.caches.named(this.name);
      if (!row || this.#isAway.value || waiting.signal.aborted) return;
      waiting.abort();
      untracked(() => void this.take(row));
    });
  }

  /** Changes with what is on screen. */
  readonly settled: ReadonlySignal<unknown> = computed(() => [
    this.#client.heard.value,
    this.selection.value,
    this.store.preview.value,
    this.fate.value,
  ]);

  /** What is on screen; null while it is not whole, or not the cache's. */
  picture(): Snapshot | null {
    return this.fate.peek() === "same" && this.#client.inFlight.peek() === 0
      ? (this.#recorder?.picture() ?? null)
      : null;
  }

  close(): void {
    this.#end.abort();
  }

  #standing(): Standing | null {
    if (this.#coming.value)
      return this.#slow.value
        ? { words: "is another cache now, which is being read. The last picture stays until then." }
        : null;
    const fate = this.fate.value;
    if (fate === "same") return null;
    const next = this.successor.value;
    const words = WORDS[fate]();
    if (!next || next.problem)
      return { words: fate === "restarted" ? `${words} Run the cell that makes ${coded(this.name)} again.` : words };
    const label = fate === "changed" || fate === "weights" ? "Read it again" : "Show the new one";
    return { words, act: { label, run: () => void this.take(next) } };
  }
}

const same = (a: CacheRef | null, b: CacheRef): boolean => a?.id === b.id && a.state === b.state;

// One open view of one cache of a kernel: the panel over a link, the status of the cache, and how to show its
// successor.
import { batch, computed, type ReadonlySignal, type Signal, signal as state, untracked } from "@preact/signals-core";
import { coded } from "../base/legible";
import { child, later, watch } from "../base/lifetime";
import { mountPanel } from "../panel";
import { Recorder } from "../snapshot/recorder";
import type { Snapshot } from "../snapshot/snapshot";
import { fitting, type Selection, select, selectionOf } from "../state/selection";
import { type StatusNotice, Store } from "../state/store";
import { NOTHING, targetKey } from "../state/target";
import { Client, RequestFailed } from "../wire/client";
import type { CacheRef, CacheRow, Target } from "../wire/protocol.gen";
import type { Caches } from "./caches";

/** The status of the cache in view. */
export type CacheStatus = "same" | "changed" | "weights" | "rebound" | "gone" | "restarted" | "waiting";

/** Reading a new cache usually takes less time; only if it takes longer is there a message. */
const MOMENT_MS = 400;

const WORDS: Record<Exclude<CacheStatus, "same">, () => string> = {
  changed: () => "was changed in place. The last picture stays.",
  weights: () => "is unchanged, but its model’s weights have changed: new numbers would mix the two.",
  rebound: () => "is now another cache. The last picture stays.",
  gone: () => "was deleted: no variable refers to it. The last picture stays.",
  restarted: () => "was lost when the kernel restarted. The last picture stays.",
  waiting: () => "cannot be read now: its kernel does not answer. The last picture stays.",
};

export class Inspection {
  readonly store = new Store();
  readonly #row = state<CacheRow | null>(null);
  readonly #end: AbortController;
  readonly #client: Client;
  readonly #recorder: Recorder | null;
  readonly #parent: HTMLElement;
  #mounted = false;
  #isChoosing = false;
  #ref: CacheRef | null = null;
  #kernel = "";
  #default = "";
  #wanted: Selection | null;
  readonly #name: Signal<string>;
  /** Whether reading the new cache of the followed variable takes long. */
  readonly #slow = state(false);

  constructor(
    parent: HTMLElement,
    readonly caches: Caches,
    name: string,
    signal: AbortSignal,
    selection: Selection | null = null,
    /** Whether to record pictures of the view. */
    records = false,
  ) {
    this.#end = child(signal);
    this.#recorder = records ? new Recorder(caches.link, this.store, this.#end.signal) : null;
    this.#client = new Client(this.#recorder ?? caches.link, this.#end.signal, () => this.#ref);
    this.#parent = parent;
    this.#wanted = selection;
    this.#name = state(name);
    watch(this.#end.signal, () => void (this.store.cacheName.value = this.name));
    // If its variable was deleted or refers to another cache, but the cache still has another name, the view uses that.
    watch(this.#end.signal, () => {
      if (this.#coming.value) return; // the view follows its variable
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
        void this.show(next);
      });
    });
    watch(this.#end.signal, () => {
      if (this.store.outdated.value > 0) untracked(() => void this.caches.refresh());
    });
    watch(this.#end.signal, () => {
      const standing = this.#standing();
      untracked(() => (this.store.statusNotice.value = standing));
    });
  }

  /** The name of the variable that the view shows. */
  get name(): string {
    return this.#name.value;
  }

  /** The cache in view, as it was when it was read; null before the first. */
  get row(): ReadonlySignal<CacheRow | null> {
    return this.#row;
  }

  readonly selection = computed(() => selectionOf(this.store, (target) => targetKey(target) === this.#default));

  /**
   * Whether the kernel does not answer, or has not listed its caches again since: the rows may be from a kernel that is
   * gone.
   */
  readonly #isAway = computed(() => this.#client.lost.value || !this.caches.fresh.value);

  readonly status: ReadonlySignal<CacheStatus> = computed(() => {
    const row = this.#row.value;
    if (!row) return "same";
    if (this.caches.kernel.value !== this.#kernel) return "restarted";
    if (this.#isAway.value) return "waiting"; // without an answer from the kernel, nothing else is known
    const now = this.caches.find(row.ref.id);
    if (!now) return this.caches.named(this.name) ? "rebound" : "gone";
    const [then, is] = [row.ref.state.split("."), now.ref.state.split(".")];
    return then[0] !== is[0] ? "changed" : then[1] !== is[1] ? "weights" : "same";
  });

  /** The cache that would replace the one in view; null if there is none. */
  readonly successor: ReadonlySignal<CacheRow | null> = computed(() => {
    if (this.status.value === "same" || this.status.value === "waiting") return null;
    const row = this.#row.value;
    return (
      this.caches.named(this.name) ??
      (row && this.status.value !== "restarted" ? this.caches.find(row.ref.id) : null) ??
      null
    );
  });

  /**
   * The new cache of the followed variable, until it is in view; null if it is, or if no variable is followed.
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
   * Shows this cache, and keeps the selection as far as it fits. The last picture stays until the default target is
   * known.
   */
  async show(row: CacheRow): Promise<void> {
    const before = this.#row.peek();
    if (this.#isChoosing && same(this.#ref, row.ref)) return; // a double click
    this.#ref = row.ref;
    this.#isChoosing = true;
    const wanted = this.#wanted ?? this.selection.peek();
    const sameModel =
      !before || (before.model === row.model && before.layers === row.layers && before.heads === row.heads);
    const selection = fitting(sameModel ? wanted : { ...wanted, target: null }, row);
    const found = selection.target ? { target: selection.target, trouble: null } : await this.#choose(row);
    if (!found || this.#ref !== row.ref) return; // another cache was chosen meanwhile
    this.#isChoosing = false;
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

  /** The model's default target, or why there is none; null if another cache is to be shown instead. */
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
      this.#isChoosing = false;
      if (code === "lost")
        this.showWhenListed(); // the kernel is gone: wait until it answers again
      else await this.#showSuccessor(row);
      return null;
    }
  }

  /** The variable was rebound after the caches were listed: shows its present cache. */
  async #showSuccessor(row: CacheRow): Promise<void> {
    await this.caches.refresh();
    const now = this.caches.named(this.name);
    if (now && !same(now.ref, row.ref) && this.#ref === row.ref) await this.show(now);
  }

  /**
   * Shows the cache of this name as soon as it is listed: for a view that is restored before its kernel has answered.
   */
  showWhenListed(): void {
    const waiting = child(this.#end.signal);
    watch(waiting.signal, () => {
      const row = this.caches.named(this.name);
      if (!row || this.#isAway.value || waiting.signal.aborted) return;
      waiting.abort();
      untracked(() => void this.show(row));
    });
  }

  /** Changes whenever the screen may change. */
  readonly settled: ReadonlySignal<unknown> = computed(() => [
    this.#client.heard.value,
    this.selection.value,
    this.store.preview.value,
    this.status.value,
  ]);

  /** The picture on screen; null while it is incomplete, or the cache is not unchanged. */
  picture(): Snapshot | null {
    return this.status.peek() === "same" && this.#client.inFlight.peek() === 0
      ? (this.#recorder?.picture() ?? null)
      : null;
  }

  close(): void {
    this.#end.abort();
  }

  #standing(): StatusNotice | null {
    if (this.#coming.value)
      return this.#slow.value
        ? { words: "is now another cache, which is being read. The last picture stays until then." }
        : null;
    const status = this.status.value;
    if (status === "same") return null;
    const next = this.successor.value;
    const words = WORDS[status]();
    if (!next || next.problem)
      return { words: status === "restarted" ? `${words} Run the cell that makes ${coded(this.name)} again.` : words };
    const label = status === "changed" || status === "weights" ? "Read it again" : "Show the new one";
    return { words, act: { label, run: () => void this.show(next) } };
  }
}

const same = (a: CacheRef | null, b: CacheRef): boolean => a?.id === b.id && a.state === b.state;

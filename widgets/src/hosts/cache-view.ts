// One open view of a kernel's cache. It has a panel, whose requests go over the link. It follows the status of the
// cache, and can show the cache that replaces it.
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

/** If reading a new cache takes longer than this, a message says so. */
const SLOW_AFTER_MS = 400;

const WORDS: Record<Exclude<CacheStatus, "same">, () => string> = {
  changed: () => "was changed in place. The last picture stays.",
  weights: () =>
    "is unchanged, but its model’s weights have changed: new numbers would mix old activations with new weights.",
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
  #isMounted = false;
  /** Whether `show` waits for the default target. */
  #isLoading = false;
  /** The cache that `show` was called for last. Until its default target is known, `store.ref` is on screen. */
  #wanted: CacheRef | null = null;
  /** The id of the kernel run in which the cache in view exists. */
  #kernel = "";
  /** The key of the default target. */
  #defaultTarget = "";
  /** The selection for the first cache. */
  #firstSelection: Selection | null;
  readonly #name: Signal<string>;
  /** Whether reading the new cache of the followed variable takes longer than SLOW_AFTER_MS. */
  readonly #isSlow = state(false);

  constructor(
    parent: HTMLElement,
    readonly caches: Caches,
    name: string,
    signal: AbortSignal,
    selection: Selection | null = null,
    /** Whether to record pictures of the view. */
    isRecording = false,
  ) {
    this.#end = child(signal);
    this.#recorder = isRecording ? new Recorder(caches.link, this.store, this.#end.signal) : null;
    this.#client = new Client(this.#recorder ?? caches.link, this.#end.signal, () => this.store.ref.peek());
    this.#parent = parent;
    this.#firstSelection = selection;
    this.#name = state(name);
    watch(this.#end.signal, () => void (this.store.cacheName.value = this.name));
    // If the view's variable was deleted, or now refers to another cache, the view uses another name of its cache.
    watch(this.#end.signal, () => {
      if (this.#newCache.value) return; // the view keeps the name of the variable that it follows
      const row = this.#row.value;
      const now = row && this.caches.kernel.value === this.#kernel ? this.caches.find(row.ref.id) : undefined;
      const [other] = now?.names ?? [];
      if (now && other !== undefined && !now.names.includes(this.name)) this.#name.value = other;
    });
    watch(this.#end.signal, () => {
      const other = this.store.against.value?.cache ?? null;
      const ref = other === null ? undefined : this.caches.named(other)?.ref;
      const isListed = this.caches.kernel.value !== "";
      untracked(() => this.store.runs.see(isListed ? other : null, ref ? `${ref.id} ${ref.state}` : ""));
    });
    watch(this.#end.signal, () => {
      const isEarlier = this.status.value === "rebound";
      untracked(() => (this.store.isEarlier.value = isEarlier));
    });
    // A cell may have made an SAE whose features can be shown.
    watch(this.#end.signal, () => {
      const listed = this.caches.listed.value;
      if (this.status.value === "same") untracked(() => (this.store.relisted.value = listed));
    });
    // When the link was lost, the requests without an answer failed. If the same kernel still has the cache, the views
    // ask again.
    let wasLost = false;
    watch(this.#end.signal, () => {
      const isLost = this.#client.lost.value;
      const isSame = this.#row.value !== null && this.status.value === "same";
      if (isLost) wasLost = true;
      else if (wasLost && isSame) {
        wasLost = false;
        untracked(() => (this.store.answersAgain.value += 1));
      }
    });
    let pause: AbortController | null = null;
    watch(this.#end.signal, () => {
      const next = this.#newCache.value;
      pause?.abort();
      pause = null;
      untracked(() => {
        this.#isSlow.value = false;
        if (!next) return;
        pause = child(this.#end.signal);
        later(SLOW_AFTER_MS, pause.signal, () => (this.#isSlow.value = true));
        void this.show(next);
      });
    });
    watch(this.#end.signal, () => {
      if (this.store.outdated.value > 0) untracked(() => void this.caches.refresh());
    });
    watch(this.#end.signal, () => {
      const notice = this.#statusNotice();
      untracked(() => (this.store.statusNotice.value = notice));
    });
  }

  /** The name of the variable that the view shows. */
  get name(): string {
    return this.#name.value;
  }

  /** The cache in view, as it was listed when it was read; null before the first one. */
  get row(): ReadonlySignal<CacheRow | null> {
    return this.#row;
  }

  readonly selection = computed(() => selectionOf(this.store, (target) => targetKey(target) === this.#defaultTarget));

  /**
   * Whether the kernel does not answer, or has not listed its caches since it was attached. Then the rows may be from
   * an earlier kernel.
   */
  readonly #isUncertain = computed(() => this.#client.lost.value || !this.caches.fresh.value);

  readonly status: ReadonlySignal<CacheStatus> = computed(() => {
    const row = this.#row.value;
    if (!row) return "same";
    if (this.caches.kernel.value !== this.#kernel) return "restarted";
    if (this.#isUncertain.value) return "waiting"; // only the kernel can report more
    const now = this.caches.find(row.ref.id);
    if (!now) return this.caches.named(this.name) ? "rebound" : "gone";
    const [before, after] = [row.ref.state.split("."), now.ref.state.split(".")];
    return before[0] !== after[0] ? "changed" : before[1] !== after[1] ? "weights" : "same";
  });

  /** The cache that can replace the one in view; null if there is none. */
  readonly successor: ReadonlySignal<CacheRow | null> = computed(() => {
    if (this.status.value === "same" || this.status.value === "waiting") return null;
    const row = this.#row.value;
    return (
      this.caches.named(this.name) ??
      (row && this.status.value !== "restarted" ? this.caches.find(row.ref.id) : null) ??
      null
    );
  });

  /** The new cache of the followed variable, while it is not in view yet; else null. */
  readonly #newCache: ReadonlySignal<CacheRow | null> = computed(() => {
    const variable = this.store.follow.value;
    const row = this.#row.value;
    const next = variable === null || !row || this.#isUncertain.value ? undefined : this.caches.named(variable);
    if (!next || next.problem || !row) return null;
    const isNew = next.ref.id !== row.ref.id || this.caches.kernel.value !== this.#kernel;
    return isNew ? next : null;
  });

  /**
   * Shows this cache. The parts of the selection that exist in this cache are kept. The last picture stays until the
   * default target is known, and its requests go to its own cache.
   */
  async show(row: CacheRow): Promise<void> {
    const before = this.#row.peek();
    if (this.#isLoading && isSame(this.#wanted, row.ref)) return; // a double click
    this.#wanted = row.ref;
    this.#isLoading = true;
    const present = this.#firstSelection ?? this.selection.peek();
    const isSameModel =
      !before || (before.model === row.model && before.layers === row.layers && before.heads === row.heads);
    const selection = fitting(isSameModel ? present : { ...present, target: null }, row);
    const loaded = selection.target ? { target: selection.target, trouble: null } : await this.#loadTarget(row);
    if (!loaded || this.#wanted !== row.ref) return; // another cache was chosen during the request
    this.#isLoading = false;
    this.#firstSelection = null;
    batch(() => {
      this.#kernel = this.caches.kernel.peek();
      this.#row.value = row;
      const { follow } = selection;
      if (follow !== null && row.names.includes(follow)) this.#name.value = follow;
      this.store.ref.value = row.ref;
      this.store.problems.value = new Map(loaded.trouble ? [["target", loaded.trouble]] : []);
      select(this.store, { ...selection, target: loaded.target });
    });
    if (!this.#isMounted && !this.#end.signal.aborted)
      mountPanel(this.#parent, this.store, this.#client, this.#end.signal);
    this.#isMounted = true;
  }

  /** The model's default target, or a sentence that explains why there is none; null if another cache will be shown. */
  async #loadTarget(row: CacheRow): Promise<{ target: Target; trouble: string | null } | null> {
    try {
      const answer = await this.#client.latest("target", { kind: "target" }, row.ref);
      if (!answer || this.#wanted !== row.ref) return null;
      this.#defaultTarget = targetKey(answer.reply.target);
      return { target: answer.reply.target, trouble: null };
    } catch (error) {
      if (!(error instanceof RequestFailed) || error.code === "closed" || this.#wanted !== row.ref) return null;
      const { code, message } = error;
      if (code !== "lost" && code !== "gone" && code !== "changed") return { target: NOTHING, trouble: message };
      this.#isLoading = false;
      if (code === "lost")
        this.showWhenListed(); // the kernel is lost: wait until it answers again
      else await this.#showSuccessor(row);
      return null;
    }
  }

  /** Shows the present cache of the variable, because the variable was rebound after the caches were listed. */
  async #showSuccessor(row: CacheRow): Promise<void> {
    await this.caches.refresh();
    const now = this.caches.named(this.name);
    if (now && !isSame(now.ref, row.ref) && this.#wanted === row.ref) await this.show(now);
  }

  /**
   * Shows the cache that has this view's name, as soon as it is listed. A view may be restored before its kernel
   * answers.
   */
  showWhenListed(): void {
    const waiting = child(this.#end.signal);
    watch(waiting.signal, () => {
      const row = this.caches.named(this.name);
      if (!row || this.#isUncertain.value || waiting.signal.aborted) return;
      waiting.abort();
      untracked(() => void this.show(row));
    });
  }

  /** Has a new value whenever the screen may have changed. */
  readonly screen: ReadonlySignal<unknown> = computed(() => [
    this.#client.heard.value,
    this.selection.value,
    this.store.preview.value,
    this.status.value,
  ]);

  /** The picture on screen; null if none is recorded, if it is incomplete, or if the cache's status is not "same". */
  picture(): Snapshot | null {
    return this.status.peek() === "same" && this.#client.inFlight.peek() === 0
      ? (this.#recorder?.picture() ?? null)
      : null;
  }

  close(): void {
    this.#end.abort();
  }

  #statusNotice(): StatusNotice | null {
    if (this.#newCache.value)
      return this.#isSlow.value
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

const isSame = (a: CacheRef | null, b: CacheRef): boolean => a?.id === b.id && a.state === b.state;

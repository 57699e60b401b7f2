// The sidebar: the choice of a kernel, its caches, and the view of one of them. Each kernel has a pane of its own,
// which is kept while another is shown.
import { computed, type ReadonlySignal, signal as state, untracked } from "@preact/signals-core";
import { plural } from "../base/format";
import { keepKeys } from "../base/keyboard";
import { child, element, later, watch } from "../base/lifetime";
import type { Selection } from "../state/selection";
import { followTheme } from "../ui/theme";
import type { CacheRow } from "../wire/protocol.gen";
import { mountCaches, WHAT } from "./cache-list";
import { Inspection } from "./cache-view";
import type { Caches } from "./caches";
import { mountKernels, type Places } from "./kernels";
import { keepPicture, type Pictures, showLastPicture } from "./last-picture";
import { mountLinkState } from "./link-state";
import type { Opened } from "./opened";

export interface SidebarHost {
  places: Places;
  /** Whether the sidebar is visible: no kernel is attached before it is. */
  visible: ReadonlySignal<boolean>;
  /** The caches in the kernel of a notebook or console, with the link to it; the host keeps one for each. */
  caches(path: string): Caches;
  /** Opens a view in the main area; undefined if the host has none. */
  enlarge?(opened: Opened): void;
  /** The view that was open for this path when the page was closed. */
  remembered(path: string): Promise<Opened | null>;
  remember(opened: Opened): void;
  /** Storage for the last pictures across a reload; undefined if the host does not keep them. */
  pictures?: Pictures;
  /** Called when the sidebar turns to another kernel. */
  onLeave?(path: string): void;
}

/** A kernel that is free for this long has run all its queued cells. */
const BETWEEN_CELLS_MS = 400;
let lists = 0;

/** The part of the sidebar for one kernel. */
class KernelPane {
  readonly node = element("div", "rs-part");
  readonly inspection = state<Inspection | null>(null);
  readonly #left = new Map<string, Selection>();
  readonly end: AbortController;
  /** Aborts when the open view closes. */
  #shown: AbortController;
  readonly #view = element("div", "rs-part-view");
  readonly #list = element("div", "rs-part-list", { id: `rs-caches-${++lists}` });
  readonly #isOpened = state(false);
  readonly #chosen = computed(() => Boolean(this.inspection.value?.row.value));
  /** The list is visible until a cache is chosen, then on demand. */
  readonly #listed = computed(() => !this.#chosen.value || this.#isOpened.value);

  constructor(
    readonly path: string,
    readonly caches: Caches,
    readonly host: SidebarHost,
    /** Whether this pane is visible. */
    seen: ReadonlySignal<boolean>,
    parent: AbortSignal,
  ) {
    this.end = child(parent);
    this.#shown = child(this.end.signal);
    const { signal } = this.end;
    const link = element("div", "rs-link");
    this.node.append(link, this.#list, this.#view);
    mountLinkState(link, caches.link, signal);
    const { enlarge } = host;
    mountCaches(
      this.#list,
      caches,
      () => this.inspection.value,
      {
        open: this.#listed,
        over: this.#chosen,
        close: (refocus) => this.#close(refocus),
      },
      {
        inspect: (row) => this.inspect(row),
        ...(enlarge ? { enlarge: (row: CacheRow) => this.enlarge(row) } : {}),
      },
      signal,
    );
    const free = state(false);
    void host.remembered(path).then((last) => {
      if (this.inspection.peek() || signal.aborted) return;
      if (!last) return void (free.value = true);
      const inspection = this.#open(last.name, last.selection);
      inspection.showWhenListed();
      if (host.pictures) void showLastPicture(path, this.#view, inspection, host.pictures, this.#shown.signal);
    });
    let waited = false;
    let pause: AbortController | null = null;
    watch(signal, () => {
      pause?.abort();
      pause = null;
      // If there is only one cache, it is opened: at once when the user turns to this kernel; if it is created later,
      // when the kernel has run its cells.
      if (!seen.value) return void (waited = false);
      if (!free.value || this.inspection.value || caches.kernel.value === "") return;
      const [lone, ...others] = caches.rows.value;
      const isLone = lone !== undefined && others.length === 0 && !lone.problem;
      const busy = caches.link.occupied?.value ?? false;
      const comesLater = waited;
      waited = true;
      if (!isLone || (comesLater && busy)) return;
      if (!comesLater) return untracked(() => this.inspect(lone));
      pause = child(signal);
      later(BETWEEN_CELLS_MS, pause.signal, () => this.inspect(lone));
    });
    watch(signal, () => {
      const inspection = this.inspection.value;
      if (!inspection?.row.value) return;
      const [name, selection] = [inspection.name, inspection.selection.value];
      untracked(() => host.remember({ path, name, selection }));
    });
    signal.addEventListener("abort", () => this.node.remove(), { once: true });
  }

  inspect(row: CacheRow, name = row.names[0] ?? "cache"): void {
    this.#isOpened.value = false;
    const open = this.inspection.peek();
    // The same variable keeps its view and its selection.
    if (open && open.name === name) {
      const shown = open.row.peek()?.ref;
      if (shown?.id !== row.ref.id || shown.state !== row.ref.state) void open.show(row);
      return;
    }
    // Another variable gets the selection it had before, or the present one; "follow" is not taken over.
    const now = open?.selection.peek();
    if (open && now) this.#left.set(open.name, now);
    void this.#open(name, this.#left.get(name) ?? (now ? { ...now, follow: null } : null)).show(row);
  }

  #open(name: string, selection: Selection | null): Inspection {
    this.inspection.peek()?.close();
    this.#shown.abort();
    const { signal } = (this.#shown = child(this.end.signal));
    const { pictures } = this.host;
    const inspection = new Inspection(this.#view, this.caches, name, signal, selection, Boolean(pictures));
    if (pictures) keepPicture(this.path, inspection, pictures, signal);
    inspection.store.around.value = {
      list: {
        id: this.#list.id,
        open: this.#listed,
        count: computed(() => {
          const { value: rows } = this.caches.rows;
          const at = rows.findIndex((row) => row.ref.id === inspection.row.value?.ref.id);
          return at === -1
            ? rows.length > 0
              ? plural(rows.length, "other")
              : ""
            : rows.length > 1
              ? `${at + 1} of ${rows.length}`
              : "";
        }),
        toggle: () => (this.#listed.peek() ? this.#close(true) : this.openList()),
      },
      ...(this.host.enlarge ? { enlarge: () => void this.enlargeShown() } : {}),
    };
    this.inspection.value = inspection;
    return inspection;
  }

  /** Opens the list over the view, below the line of its button. */
  openList(): void {
    if (!this.#chosen.peek()) return;
    const button = this.#button;
    if (button)
      this.#list.style.setProperty(
        "--rs-under",
        `${button.getBoundingClientRect().bottom - this.node.getBoundingClientRect().top + 4}px`,
      );
    this.#isOpened.value = true;
  }

  #close(refocus: boolean): void {
    this.#isOpened.value = false;
    if (refocus) this.#button?.focus();
  }

  get #button(): HTMLElement | null {
    return this.#view.querySelector<HTMLElement>(".rs-named");
  }

  /** Focuses the cache in view, or the first row. */
  focus(): boolean {
    const to = this.#listed.peek()
      ? this.#list.querySelector<HTMLElement>('[aria-current="true"], .rs-cache-main')
      : this.#button;
    to?.focus();
    return to !== null;
  }

  enlargeShown(): boolean {
    const row = this.inspection.peek()?.row.peek();
    if (row) this.enlarge(row);
    return Boolean(row);
  }

  enlarge(row: CacheRow): void {
    const open = this.inspection.peek();
    const isOpen = open?.row.peek()?.ref.id === row.ref.id;
    this.host.enlarge?.({
      path: this.path,
      name: row.names[0] ?? "cache",
      selection: isOpen ? open.selection.peek() : null,
    });
  }
}

export class Sidebar {
  readonly #parts = new Map<string, KernelPane>();
  readonly #current = state<KernelPane | null>(null);
  readonly #dropped = state(0);
  readonly #root = element("div", "residscope rs-sidebar");
  #pending: AbortController | null = null;

  constructor(
    parent: HTMLElement,
    readonly host: SidebarHost,
    readonly signal: AbortSignal,
  ) {
    const root = this.#root;
    const head = element("div", "rs-side-head");
    const place = element("div", "rs-side-parts");
    const nothing = element(
      "p",
      "rs-side-none",
      {},
      `${WHAT}. Open a notebook: the activation caches in its kernel are listed here.`,
    );
    root.append(head, nothing, place);
    parent.append(root);
    followTheme(root, signal);
    mountKernels(head, host.places, () => this.refresh(), signal);
    const path = computed(() => host.places.picked.value ?? host.places.focused.value?.path ?? null);
    watch(signal, () => {
      void this.#dropped.value; // the visible pane may have to be created again
      if (!host.visible.value) return;
      const now = path.value;
      untracked(() => {
        const before = this.#current.peek();
        const part = now === null ? null : this.#part(now, place);
        for (const other of this.#parts.values()) other.node.hidden = other !== part;
        nothing.hidden = part !== null;
        this.#current.value = part;
        if (before && before !== part) host.onLeave?.(before.path);
      });
    });
    keepKeys(root, signal);
    signal.addEventListener("abort", () => root.remove(), { once: true });
  }

  /** The path of the visible pane. */
  get path(): string | null {
    return this.#current.peek()?.path ?? null;
  }

  /** The visible view. */
  get inspection(): Inspection | null {
    return this.#current.peek()?.inspection.peek() ?? null;
  }

  /** Shows a cache by its name (null: the only one there is) as soon as the caches are listed. */
  inspect(name: string | null): void {
    this.#pending?.abort();
    const pending = (this.#pending = child(this.signal));
    watch(pending.signal, () => {
      const part = this.#current.value;
      if (!part || part.caches.kernel.value === "" || pending.signal.aborted) return;
      const rows = part.caches.rows.value;
      const row = name === null ? (rows.length === 1 ? rows[0] : undefined) : part.caches.named(name);
      pending.abort();
      untracked(() => (row ? part.inspect(row, name ?? undefined) : part.openList()));
    });
  }

  /** Opens the visible view in the main area. */
  enlarge(): boolean {
    return this.#current.peek()?.enlargeShown() ?? false;
  }

  refresh(): void {
    void this.#current.peek()?.caches.refresh();
  }

  /** Focuses the cache in view, the first row of the list, or the choice of a kernel. */
  focus(): void {
    if (!this.#current.peek()?.focus()) this.#root.querySelector<HTMLElement>("select")?.focus();
  }

  /** Closes the pane of a path, for example of a renamed notebook; if it was visible, it is created again. */
  drop(path: string): void {
    const part = this.#parts.get(path);
    if (!part) return;
    this.#parts.delete(path);
    part.end.abort();
    if (this.#current.peek() === part) this.#current.value = null;
    this.#dropped.value += 1;
  }

  #part(path: string, place: HTMLElement): KernelPane {
    const known = this.#parts.get(path);
    if (known) return known;
    const seen = computed(() => this.host.visible.value && this.#current.value?.path === path);
    const part = new KernelPane(path, this.host.caches(path), this.host, seen, this.signal);
    this.#parts.set(path, part);
    place.append(part.node);
    return part;
  }
}

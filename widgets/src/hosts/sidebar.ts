// The sidebar: the choice of a kernel, the list of its caches, and the view of one cache. Each kernel has its own pane,
// which stays in the page while another pane is visible.
import { computed, type ReadonlySignal, signal as state, untracked } from "@preact/signals-core";
import type { Chapter } from "../base/chapters";
import { plural } from "../base/format";
import { keepKeys } from "../base/keyboard";
import { child, element, later, watch } from "../base/lifetime";
import type { Selection } from "../state/selection";
import { followTheme } from "../ui/theme";
import { askForHelp } from "../views/header/help";
import type { CacheRow } from "../wire/protocol.gen";
import { ABOUT, mountCaches } from "./cache-list";
import { Inspection } from "./cache-view";
import type { Caches } from "./caches";
import { mountKernels, type Places } from "./kernels";
import { keepPicture, type Pictures, showLastPicture } from "./last-picture";
import { mountLinkState } from "./link-state";
import type { Opened } from "./opened";

export interface SidebarHost {
  places: Places;
  /** Whether the sidebar is visible. While it is hidden, it attaches to no other kernel. */
  visible: ReadonlySignal<boolean>;
  /** The caches in the kernel of a notebook or console. The host keeps one object for each path, with its link. */
  caches(path: string): Caches;
  /** Opens a view in the main area; undefined if the host has no main area. */
  enlarge?(opened: Opened): void;
  /** The view that was open for this path when the page was closed. */
  remembered(path: string): Promise<Opened | null>;
  remember(opened: Opened): void;
  /** Storage for the last pictures across a reload; undefined if the host does not keep them. */
  pictures?: Pictures;
  /** The chapter about the sidebar in this host. */
  chapter?: Chapter;
  /** Called when the sidebar changes to another kernel, with the path of the kernel that it leaves. */
  onLeave?(path: string): void;
}

/** A kernel that is idle for this time has run all its queued cells. */
const BETWEEN_CELLS_MS = 400;
/** The number of lists that were made. It makes their ids unique. */
let lists = 0;

/** The part of the sidebar for one kernel. */
class KernelPane {
  readonly node = element("div", "rs-part");
  readonly inspection = state<Inspection | null>(null);
  /** The last selection of each cache that was in view, by name. */
  readonly #lastSelections = new Map<string, Selection>();
  readonly end: AbortController;
  /** Aborts when the open view closes. */
  #viewEnd: AbortController;
  readonly #view = element("div", "rs-part-view");
  readonly #list = element("div", "rs-part-list", { id: `rs-caches-${++lists}` });
  /** Whether the user has opened the list over the view. */
  readonly #isOpened = state(false);
  readonly #hasCache = computed(() => Boolean(this.inspection.value?.row.value));
  /** The list is visible until a cache is in view. After that, the user can open it. */
  readonly #isListVisible = computed(() => !this.#hasCache.value || this.#isOpened.value);

  constructor(
    readonly path: string,
    readonly caches: Caches,
    readonly host: SidebarHost,
    /** Whether this pane is visible. */
    isVisible: ReadonlySignal<boolean>,
    parent: AbortSignal,
  ) {
    this.end = child(parent);
    this.#viewEnd = child(this.end.signal);
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
        isOpen: this.#isListVisible,
        isOverView: this.#hasCache,
        close: (refocus) => this.#close(refocus),
      },
      {
        inspect: (row) => this.inspect(row),
        ...(enlarge ? { enlarge: (row: CacheRow) => this.enlarge(row) } : {}),
      },
      signal,
    );
    const hasNoLastView = state(false);
    const remembered = host.remembered(path).catch(() => null); // a memory that fails counts as empty
    void remembered.then((last) => {
      if (this.inspection.peek() || signal.aborted) return;
      if (!last) return void (hasNoLastView.value = true);
      const inspection = this.#open(last.name, last.selection);
      inspection.showWhenListed();
      if (host.pictures) void showLastPicture(path, this.#view, inspection, host.pictures, this.#viewEnd.signal);
    });
    let wasVisible = false;
    let pause: AbortController | null = null;
    watch(signal, () => {
      pause?.abort();
      pause = null;
      // If there is only one cache, it is opened. This happens at once when the pane becomes visible. If the cache is
      // created later, the pane waits until the kernel has run its cells.
      if (!isVisible.value) return void (wasVisible = false);
      if (!hasNoLastView.value || this.inspection.value || caches.kernel.value === "") return;
      const [first, ...others] = caches.rows.value;
      const isOnlyOne = first !== undefined && others.length === 0 && !first.problem;
      const isBusy = caches.link.occupied?.value ?? false;
      const isCreatedLater = wasVisible;
      wasVisible = true;
      if (!isOnlyOne || (isCreatedLater && isBusy)) return;
      if (!isCreatedLater) return untracked(() => this.inspect(first));
      pause = child(signal);
      later(BETWEEN_CELLS_MS, pause.signal, () => this.inspect(first));
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
    // Another variable gets its last selection. If it has none, it gets the present one, without "follow".
    const now = open?.selection.peek();
    if (open && now) this.#lastSelections.set(open.name, now);
    void this.#open(name, this.#lastSelections.get(name) ?? (now ? { ...now, follow: null } : null)).show(row);
  }

  #open(name: string, selection: Selection | null): Inspection {
    this.inspection.peek()?.close();
    this.#viewEnd.abort();
    const { signal } = (this.#viewEnd = child(this.end.signal));
    const { pictures } = this.host;
    const inspection = new Inspection(this.#view, this.caches, name, signal, selection, Boolean(pictures));
    if (pictures) keepPicture(this.path, inspection, pictures, signal);
    inspection.store.hostControls.value = {
      list: {
        id: this.#list.id,
        open: this.#isListVisible,
        count: computed(() => {
          const { value: rows } = this.caches.rows;
          const index = rows.findIndex((row) => row.ref.id === inspection.row.value?.ref.id);
          return index === -1
            ? rows.length > 0
              ? plural(rows.length, "other")
              : ""
            : rows.length > 1
              ? `${index + 1} of ${rows.length}`
              : "";
        }),
        toggle: () => (this.#isListVisible.peek() ? this.#close(true) : this.openList()),
      },
      ...(this.host.enlarge ? { enlarge: () => void this.enlargeShown() } : {}),
    };
    this.inspection.value = inspection;
    return inspection;
  }

  /** Opens the list over the view, below the line of its button. */
  openList(): void {
    if (!this.#hasCache.peek()) return;
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

  /** Gives the focus to the cache in view, or to the first row of the list. Returns false if there is neither. */
  focus(): boolean {
    const to = this.#isListVisible.peek()
      ? (this.#list.querySelector<HTMLElement>('[aria-current="true"]') ??
        this.#list.querySelector<HTMLElement>(".rs-cache-main"))
      : this.#button;
    to?.focus();
    return to !== null;
  }

  /** Opens the documentation of the view. Returns false if there is none. */
  help(): boolean {
    const button = this.#hasCache.peek() ? this.#view.querySelector<HTMLElement>(".rs-help-open") : null;
    button?.click();
    return button !== null;
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
  readonly #panes = new Map<string, KernelPane>();
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
    const header = element("div", "rs-side-head");
    const place = element("div", "rs-side-parts");
    const emptyNote = element(
      "p",
      "rs-side-none",
      {},
      `${ABOUT}. Open a notebook: the activation caches in its kernel are listed here.`,
    );
    root.append(header, emptyNote, place);
    parent.append(root);
    followTheme(root, signal);
    mountKernels(header, host.places, { refresh: () => this.refresh(), help: () => this.help() }, signal);
    const path = computed(() => host.places.picked.value ?? host.places.focused.value?.path ?? null);
    watch(signal, () => {
      void this.#dropped.value; // the visible pane may have to be created again
      if (!host.visible.value) return;
      const now = path.value;
      untracked(() => {
        const before = this.#current.peek();
        const pane = now === null ? null : this.#paneOf(now, place);
        for (const other of this.#panes.values()) other.node.hidden = other !== pane;
        emptyNote.hidden = pane !== null;
        this.#current.value = pane;
        if (before && before !== pane) host.onLeave?.(before.path);
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

  /** Shows the cache of this name as soon as the caches are listed. Null means the only cache, if there is only one. */
  inspect(name: string | null): void {
    this.#pending?.abort();
    const pending = (this.#pending = child(this.signal));
    watch(pending.signal, () => {
      const pane = this.#current.value;
      if (!pane || pane.caches.kernel.value === "" || pending.signal.aborted) return;
      const rows = pane.caches.rows.value;
      const row = name === null ? (rows.length === 1 ? rows[0] : undefined) : pane.caches.named(name);
      pending.abort();
      untracked(() => (row ? pane.inspect(row, name ?? undefined) : pane.openList()));
    });
  }

  /** Opens the visible view in the main area. Returns false if there is none. */
  enlarge(): boolean {
    return this.#current.peek()?.enlargeShown() ?? false;
  }

  refresh(): void {
    void this.#current.peek()?.caches.refresh();
  }

  /** Opens the documentation of the visible view; if there is none, the chapter about the sidebar. */
  help(): void {
    if (!this.#current.peek()?.help()) askForHelp(this.#root, this.host.chapter ?? "sidebar");
  }

  /** Gives the focus to the cache in view, the first row of the list, or the choice of a kernel. */
  focus(): void {
    if (!this.#current.peek()?.focus()) this.#root.querySelector<HTMLElement>("select")?.focus();
  }

  /** Closes the pane of a path, for example of a renamed notebook. If the pane was visible, it is created again. */
  drop(path: string): void {
    const pane = this.#panes.get(path);
    if (!pane) return;
    this.#panes.delete(path);
    pane.end.abort();
    if (this.#current.peek() === pane) this.#current.value = null;
    this.#dropped.value += 1;
  }

  #paneOf(path: string, place: HTMLElement): KernelPane {
    const existing = this.#panes.get(path);
    if (existing) return existing;
    const isVisible = computed(() => this.host.visible.value && this.#current.value?.path === path);
    const pane = new KernelPane(path, this.host.caches(path), this.host, isVisible, this.signal);
    this.#panes.set(path, pane);
    place.append(pane.node);
    return pane;
  }
}

// The sidebar: whose kernel, its caches, and the one that is looked at. For every kernel its own part, kept while
// others are in view.
import { computed, type ReadonlySignal, signal as state, untracked } from "@preact/signals-core";
import { plural } from "../base/format";
import { keepKeys } from "../base/keys";
import { child, element, later, watch } from "../base/lifetime";
import type { Selection } from "../state/selection";
import { dress } from "../ui/theme";
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
  /** Whether the sidebar is seen: no kernel is attached to before somebody looks. */
  visible: ReadonlySignal<boolean>;
  /** The link to the kernel of a notebook or console, and the caches behind it; the host keeps one for each. */
  caches(path: string): Caches;
  /** Opens a view in a place of its own; left out where the host has none. */
  enlarge?(opened: Opened): void;
  /** What was looked at here when the page was left. */
  remembered(path: string): Promise<Opened | null>;
  remember(opened: Opened): void;
  /** Where the last pictures are kept over a reload; left out where a page outlives no kernel. */
  pictures?: Pictures;
  /** Told when the sidebar looks elsewhere. */
  left?(path: string): void;
}

/** A kernel that is free for as long has run the cells it was given. */
const BETWEEN_CELLS_MS = 400;
let lists = 0;

/** The part of one kernel. */
class Part {
  readonly node = element("div", "rs-part");
  readonly inspection = state<Inspection | null>(null);
  readonly #left = new Map<string, Selection>();
  readonly end: AbortController;
  /** Ends with the view that is open. */
  #shown: AbortController;
  readonly #view = element("div", "rs-part-view");
  readonly #list = element("div", "rs-part-list", { id: `rs-caches-${++lists}` });
  readonly #demanded = state(false);
  readonly #chosen = computed(() => Boolean(this.inspection.value?.row.value));
  /** The list is there until a cache is chosen, then on demand. */
  readonly #listed = computed(() => !this.#chosen.value || this.#demanded.value);

  constructor(
    readonly path: string,
    readonly caches: Caches,
    readonly host: SidebarHost,
    /** Whether somebody looks at this part. */
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
      inspection.takeWhenListed();
      if (host.pictures) void showLastPicture(path, this.#view, inspection, host.pictures, this.#shown.signal);
    });
    let waited = false;
    let pause: AbortController | null = null;
    watch(signal, () => {
      pause?.abort();
      pause = null;
      // The only cache there is, is the one that is meant: at once where somebody turns to it; one that comes later,
      // when its cells have run.
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
    this.#demanded.value = false;
    const open = this.inspection.peek();
    // The same variable keeps its view and what is selected in it.
    if (open && open.name === name) {
      const shown = open.row.peek()?.ref;
      if (shown?.id !== row.ref.id || shown.state !== row.ref.state) void open.take(row);
      return;
    }
    // Another one starts with what it was left with, or with what is selected now; each variable is followed by itself.
    const now = open?.selection.peek();
    if (open && now) this.#left.set(open.name, now);
    void this.#open(name, this.#left.get(name) ?? (now ? { ...now, follow: null } : null)).take(row);
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
        toggle: () => (this.#listed.peek() ? this.#close(true) : this.demand()),
      },
      ...(this.host.enlarge ? { enlarge: () => void this.enlargeShown() } : {}),
    };
    this.inspection.value = inspection;
    return inspection;
  }

  /** Opens the list over the view, beneath the line of its button. */
  demand(): void {
    if (!this.#chosen.peek()) return;
    const button = this.#button;
    if (button)
      this.#list.style.setProperty(
        "--rs-under",
        `${button.getBoundingClientRect().bottom - this.node.getBoundingClientRect().top + 4}px`,
      );
    this.#demanded.value = true;
  }

  #close(refocus: boolean): void {
    this.#demanded.value = false;
    if (refocus) this.#button?.focus();
  }

  get #button(): HTMLElement | null {
    return this.#view.querySelector<HTMLElement>(".rs-named");
  }

  /** The cache in view, or the first row. */
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
  readonly #parts = new Map<string, Part>();
  readonly #current = state<Part | null>(null);
  readonly #dropped = state(0);
  readonly #root = element("div", "residscope rs-sidebar");
  #wish: AbortController | null = null;

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
    dress(root, signal);
    mountKernels(head, host.places, () => this.refresh(), signal);
    const path = computed(() => host.places.picked.value ?? host.places.focused.value?.path ?? null);
    watch(signal, () => {
      void this.#dropped.value; // what was looked at may have to be made again
      if (!host.visible.value) return;
      const now = path.value;
      untracked(() => {
        const before = this.#current.peek();
        const part = now === null ? null : this.#part(now, place);
        for (const other of this.#parts.values()) other.node.hidden = other !== part;
        nothing.hidden = part !== null;
        this.#current.value = part;
        if (before && before !== part) host.left?.(before.path);
      });
    });
    keepKeys(root, signal);
    signal.addEventListener("abort", () => root.remove(), { once: true });
  }

  /** Where the sidebar looks. */
  get path(): string | null {
    return this.#current.peek()?.path ?? null;
  }

  /** The view that is looked at. */
  get inspection(): Inspection | null {
    return this.#current.peek()?.inspection.peek() ?? null;
  }

  /** Looks at a cache by its name, or at the only one there is, as soon as they are listed. */
  inspect(name: string | null): void {
    this.#wish?.abort();
    const wish = (this.#wish = child(this.signal));
    watch(wish.signal, () => {
      const part = this.#current.value;
      if (!part || part.caches.kernel.value === "" || wish.signal.aborted) return;
      const rows = part.caches.rows.value;
      const row = name === null ? (rows.length === 1 ? rows[0] : undefined) : part.caches.named(name);
      wish.abort();
      untracked(() => (row ? part.inspect(row, name ?? undefined) : part.demand()));
    });
  }

  /** The view that is looked at, into a place of its own. */
  enlarge(): boolean {
    return this.#current.peek()?.enlargeShown() ?? false;
  }

  refresh(): void {
    void this.#current.peek()?.caches.refresh();
  }

  /** The cache in view, the first row of the list, or the choice of a kernel. */
  focus(): void {
    if (!this.#current.peek()?.focus()) this.#root.querySelector<HTMLElement>("select")?.focus();
  }

  /** A notebook was renamed: what was at its old path is looked at again. */
  drop(path: string): void {
    const part = this.#parts.get(path);
    if (!part) return;
    this.#parts.delete(path);
    part.end.abort();
    if (this.#current.peek() === part) this.#current.value = null;
    this.#dropped.value += 1;
  }

  #part(path: string, place: HTMLElement): Part {
    const known = this.#parts.get(path);
    if (known) return known;
    const seen = computed(() => this.host.visible.value && this.#current.value?.path === path);
    const part = new Part(path, this.host.caches(path), this.host, seen, this.signal);
    this.#parts.set(path, part);
    place.append(part.node);
    return part;
  }
}

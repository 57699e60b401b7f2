// Remembers the open view of each notebook across a reload of the page.
import { Lru } from "../base/lru";
import { asOpened, type Opened } from "./opened";

/** The views of at most this many notebooks are remembered: those that changed last. */
const MAX_NOTEBOOKS = 50;

export class Memory {
  readonly #views = new Lru<string, Opened>(MAX_NOTEBOOKS);

  /** `save` stores all views. `read` returns a stored view; null if the host cannot open it. */
  constructor(
    readonly save: (all: Opened[]) => void,
    readonly read: (stored: unknown) => Opened | null = asOpened,
  ) {}

  /** The views, from the oldest to the latest. */
  get all(): Opened[] {
    return this.#views.values();
  }

  get(path: string): Opened | null {
    return this.#views.peek(path) ?? null;
  }

  set(opened: Opened): void {
    this.#views.set(opened.path, opened);
    this.save(this.all);
  }

  /** Moves a view to the new path of its notebook. */
  move(from: string, to: string): void {
    const opened = this.get(from);
    if (!opened) return;
    this.#views.delete(from);
    this.set({ ...opened, path: to });
  }

  /** Adds the stored views, whose data is not trusted. Views that were set before this call are newer, and stay. */
  load(stored: unknown): void {
    const newer = this.all;
    const older = Object.values((stored ?? {}) as object).map(this.read);
    for (const opened of [...older, ...newer]) if (opened) this.#views.set(opened.path, opened);
  }
}

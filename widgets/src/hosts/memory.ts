// What was looked at in each notebook, over a reload.
import { Lru } from "../base/lru";
import { asOpened, type Opened } from "./opened";

/** So many notebooks are remembered, the latest. */
const MOST = 50;

export class Memory {
  readonly #kept = new Lru<string, Opened>(MOST);

  /** `save` stores them; `read` reads one of them back, or gives null for what the host cannot open. */
  constructor(
    readonly save: (all: Opened[]) => void,
    readonly read: (stored: unknown) => Opened | null = asOpened,
  ) {}

  /** From the one that was set the longest ago to the latest. */
  get all(): Opened[] {
    return this.#kept.values();
  }

  get(path: string): Opened | null {
    return this.#kept.peek(path) ?? null;
  }

  set(opened: Opened): void {
    this.#kept.set(opened.path, opened);
    this.save(this.all);
  }

  /** A notebook has another name. */
  move(from: string, to: string): void {
    const opened = this.get(from);
    if (!opened) return;
    this.#kept.delete(from);
    this.set({ ...opened, path: to });
  }

  /** Takes back what was stored, which may be anything. What was set since is newer. */
  load(stored: unknown): void {
    const since = this.all;
    const before = Object.values((stored ?? {}) as object).map(this.read);
    for (const opened of [...before, ...since]) if (opened) this.#kept.set(opened.path, opened);
  }
}

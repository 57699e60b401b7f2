/** Brings pages and kernels together: a connection for each notebook that somebody looks at, told to all who look. */

import type { Memory, Opened } from "@residscope/widgets/node";
import { EventEmitter, Uri } from "vscode";

import { Connection } from "./connection";
import { standsInVsCode } from "./jupyter";
import type { ToPage } from "./messages";
import { Notebooks } from "./notebooks";
import type { Page } from "./page";
import type { Pictures } from "./pictures";

export class Hub {
  readonly notebooks: Notebooks;
  /** A notebook that was looked at has another name. */
  readonly renamed = new EventEmitter<{ from: string; to: string }>();
  readonly #pages = new Set<Page>();
  readonly #connections = new Map<string, Connection>();
  /** Names that notebooks were given in this window: their kernels did not end with another one. */
  readonly #given = new Set<string>();

  constructor(
    /** Where the page's scripts and styles lie. */
    readonly assets: Uri,
    readonly memory: Memory,
    readonly pictures: Pictures,
    readonly enlarge: (opened: Opened) => void,
    readonly signal: AbortSignal,
  ) {
    this.notebooks = new Notebooks(
      {
        places: () => this.#tell(this.places()),
        cell: (path, started) => {
          this.#connections.get(path)?.cell(started);
          if (!started) for (const page of this.#pages) if (page.hears(path)) page.cell(path);
        },
        opened: (path, open) => this.#connections.get(path)?.close(open, this.#name(path)),
        moved: (from, to) => this.#moved(from, to),
      },
      signal,
    );
  }

  enter(page: Page): void {
    this.#pages.add(page);
  }

  leave(page: Page): void {
    this.#pages.delete(page);
  }

  places(): ToPage {
    return { say: "places", focused: this.notebooks.focused, running: this.notebooks.running };
  }

  /** The way to a notebook's kernel, made and attached when it is first asked for. */
  connection(path: string): Connection {
    const known = this.#connections.get(path);
    if (known) return known;
    const name = this.#name(path);
    const made = new Connection(
      Uri.parse(path),
      {
        state: (state) => this.#tell({ say: "state", path, state }, path),
        lost: () => this.#tell({ say: "lost", path }, path),
        renewed: () => this.#tell({ say: "renewed", path }, path),
        occupied: (occupied) => this.#tell({ say: "occupied", path, occupied }, path),
      },
      this.signal,
      name === null || this.#given.has(path) ? { what: "none" } : { what: "window", name },
      this.notebooks.cells(path),
    );
    this.#connections.set(path, made);
    if (this.notebooks.isOpen(path)) void made.attach();
    else made.close();
    return made;
  }

  /** What stood in the way everywhere may be gone: the workspace is trusted now, or an extension was installed. */
  retry(): void {
    for (const connection of this.#connections.values()) if (standsInVsCode(connection.state)) void connection.attach();
  }

  /** The cache that was looked at there. */
  #name(path: string): string | null {
    return this.memory.all.find((opened) => opened.path === path)?.name ?? null;
  }

  /** A file or a folder has another name: what was looked at in a notebook there is found under it. */
  #moved(from: string, to: string): void {
    for (const { path } of this.memory.all) {
      if (path !== from && !path.startsWith(`${from}/`)) continue;
      const now = to + path.slice(from.length);
      this.#given.add(now);
      this.memory.move(path, now);
      this.pictures.move(path, now);
      this.renamed.fire({ from: path, to: now });
      this.#tell({ say: "moved", from: path, to: now });
    }
  }

  #tell(message: ToPage, path?: string): void {
    for (const page of this.#pages) if (path === undefined || page.hears(path)) page.post(message);
  }
}

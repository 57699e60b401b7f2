/** Connects pages and kernels: one connection for each notebook that pages show, and its messages to all these pages. */

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
  /** Fires when a notebook that has a view was renamed. */
  readonly renamed = new EventEmitter<{ from: string; to: string }>();
  readonly #pages = new Set<Page>();
  readonly #connections = new Map<string, Connection>();
  /** The new paths of notebooks that were renamed in this window: their kernels did not end with an earlier window. */
  readonly #given = new Set<string>();

  constructor(
    /** The folder of the page's scripts and styles. */
    readonly assets: Uri,
    readonly memory: Memory,
    readonly pictures: Pictures,
    readonly enlarge: (opened: Opened) => void,
    readonly signal: AbortSignal,
  ) {
    this.notebooks = new Notebooks(
      {
        places: () => this.#send(this.places()),
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

  /** The connection to a notebook's kernel; created and attached at the first call. */
  connection(path: string): Connection {
    const known = this.#connections.get(path);
    if (known) return known;
    const name = this.#name(path);
    const made = new Connection(
      Uri.parse(path),
      {
        state: (state) => this.#send({ say: "state", path, state }, path),
        lost: () => this.#send({ say: "lost", path }, path),
        renewed: () => this.#send({ say: "renewed", path }, path),
        occupied: (occupied) => this.#send({ say: "occupied", path, occupied }, path),
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

  /** Tries again where VS Code itself was the obstacle: the workspace is trusted now, or an extension was installed. */
  retry(): void {
    for (const connection of this.#connections.values()) if (standsInVsCode(connection.state)) void connection.attach();
  }

  /** The cache that was open in a notebook. */
  #name(path: string): string | null {
    return this.memory.all.find((opened) => opened.path === path)?.name ?? null;
  }

  /** Follows a renamed file or folder: its notebooks keep their views and pictures. */
  #moved(from: string, to: string): void {
    for (const { path } of this.memory.all) {
      if (path !== from && !path.startsWith(`${from}/`)) continue;
      const now = to + path.slice(from.length);
      this.#given.add(now);
      this.memory.move(path, now);
      this.pictures.move(path, now);
      this.renamed.fire({ from: path, to: now });
      this.#send({ say: "moved", from: path, to: now });
    }
  }

  #send(message: ToPage, path?: string): void {
    for (const page of this.#pages) if (path === undefined || page.hears(path)) page.post(message);
  }
}

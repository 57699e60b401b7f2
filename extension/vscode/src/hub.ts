/** Connects pages and kernels. Each notebook has one connection, whose messages go to all pages of the notebook. */

import type { Memory, Opened } from "@residscope/widgets/node";
import { EventEmitter, Uri } from "vscode";

import { Connection } from "./connection";
import { isPreventedByVsCode } from "./jupyter";
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
  /**
   * The new paths of notebooks that were renamed in this window. If such a notebook has no kernel, a reload of the
   * window is not the reason.
   */
  readonly #newPaths = new Set<string>();

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
          if (!started) for (const page of this.#pages) if (page.listensTo(path)) page.cell(path);
        },
        opened: (path, isOpen) => this.#connections.get(path)?.setOpen(isOpen, this.#cacheName(path)),
        moved: (from, to) => this.#move(from, to),
      },
      signal,
    );
  }

  add(page: Page): void {
    this.#pages.add(page);
  }

  remove(page: Page): void {
    this.#pages.delete(page);
  }

  places(): ToPage {
    return { say: "places", focused: this.notebooks.focused, running: this.notebooks.running };
  }

  /** The connection to a notebook's kernel; created and attached at the first call. */
  connection(path: string): Connection {
    const existing = this.#connections.get(path);
    if (existing) return existing;
    const name = this.#cacheName(path);
    const connection = new Connection(
      Uri.parse(path),
      {
        state: (state) => this.#send({ say: "state", path, state }, path),
        lost: () => this.#send({ say: "lost", path }, path),
        renewed: () => this.#send({ say: "renewed", path }, path),
        occupied: (occupied) => this.#send({ say: "occupied", path, occupied }, path),
      },
      this.signal,
      name === null || this.#newPaths.has(path) ? { cause: "none" } : { cause: "window", name },
      this.notebooks.cells(path),
    );
    this.#connections.set(path, connection);
    if (this.notebooks.isOpen(path)) void connection.attach();
    else connection.setOpen(false);
    return connection;
  }

  /** Tries again where VS Code prevented attaching: now the workspace is trusted, or an extension was installed. */
  retry(): void {
    for (const connection of this.#connections.values())
      if (isPreventedByVsCode(connection.state)) void connection.attach();
  }

  /** The name of the cache that was open in a notebook; null if there was none. */
  #cacheName(path: string): string | null {
    return this.memory.all.find((opened) => opened.path === path)?.name ?? null;
  }

  /** Called when a file or folder was renamed. Its notebooks keep their views and pictures. */
  #move(from: string, to: string): void {
    for (const { path } of this.memory.all) {
      if (path !== from && !path.startsWith(`${from}/`)) continue;
      const now = to + path.slice(from.length);
      this.#newPaths.add(now);
      this.memory.move(path, now);
      this.pictures.move(path, now);
      this.renamed.fire({ from: path, to: now });
      this.#send({ say: "moved", from: path, to: now });
    }
  }

  #send(message: ToPage, path?: string): void {
    for (const page of this.#pages) if (path === undefined || page.listensTo(path)) page.post(message);
  }
}

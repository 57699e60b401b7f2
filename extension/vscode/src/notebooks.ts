/** The open notebooks, the focused one, and events when their cells start and end. */

import type { Place } from "@residscope/widgets";
import { listen } from "@residscope/widgets/node";
import {
  type NotebookCell,
  type NotebookCellExecutionSummary,
  type NotebookDocument,
  Uri,
  window,
  workspace,
} from "vscode";

const TYPES = new Set(["jupyter-notebook", "interactive"]);

export interface NotebookListener {
  /** The focused notebook or the open notebooks have changed. */
  places(): void;
  cell(path: string, started: boolean): void;
  opened(path: string, open: boolean): void;
  /** A file or folder was renamed. */
  moved(from: string, to: string): void;
}

export class Notebooks {
  focused: Place | null = null;
  readonly #running = new Set<NotebookCell>();

  constructor(
    readonly listener: NotebookListener,
    readonly signal: AbortSignal,
  ) {
    for (const changed of [window.onDidChangeActiveNotebookEditor, window.onDidChangeVisibleNotebookEditors]) {
      listen<unknown>(changed, () => this.#focus() && listener.places(), signal);
    }
    listen(workspace.onDidOpenNotebookDocument, (notebook) => this.#list(notebook, true), signal);
    listen(workspace.onDidCloseNotebookDocument, (notebook) => this.#list(notebook, false), signal);
    listen(
      workspace.onDidRenameFiles,
      ({ files }) => {
        for (const { oldUri, newUri } of files) listener.moved(oldUri.toString(), newUri.toString());
      },
      signal,
    );
    listen(
      workspace.onDidChangeNotebookDocument,
      ({ notebook, cellChanges }) => {
        if (!TYPES.has(notebook.notebookType)) return;
        for (const { cell, executionSummary: now } of cellChanges)
          if (now && (now.executionOrder !== undefined || this.#running.has(cell))) this.#cell(cell, runs(now));
      },
      signal,
    );
    this.#focus();
  }

  get running(): Place[] {
    return workspace.notebookDocuments
      .filter(({ notebookType, isClosed }) => TYPES.has(notebookType) && !isClosed)
      .map(placeOf);
  }

  isOpen(path: string): boolean {
    return this.running.some((place) => place.path === path);
  }

  /** How many cells of a notebook are running. */
  cells(path: string): number {
    return [...this.#running].filter(({ notebook, index }) => index >= 0 && notebook.uri.toString() === path).length; // −1: deleted
  }

  /** Updates the focused notebook, and returns whether it has changed. */
  #focus(): boolean {
    // After a reload of the window no notebook may have the focus: then take a visible one.
    const editor = window.activeNotebookEditor ?? (this.focused ? undefined : window.visibleNotebookEditors[0]);
    const notebook = editor?.notebook;
    if (!notebook || !TYPES.has(notebook.notebookType)) return false; // a text file or one of our views changes nothing
    const follows = workspace.getConfiguration("residscope").get("followFocus", true);
    if (this.focused && !follows && this.isOpen(this.focused.path)) return false;
    this.focused = placeOf(notebook);
    return true;
  }

  #list(notebook: NotebookDocument, open: boolean): void {
    if (!TYPES.has(notebook.notebookType)) return;
    const { path } = placeOf(notebook);
    for (const cell of [...this.#running]) if (cell.notebook === notebook) this.#running.delete(cell);
    this.listener.opened(path, open);
    if (!open && this.focused?.path === path) this.focused = this.running[0] ?? null;
    this.listener.places();
  }

  #cell(cell: NotebookCell, runs: boolean): void {
    if (this.#running.has(cell) === runs) {
      if (!runs) this.listener.cell(cell.notebook.uri.toString(), false); // so short that its start was not reported
      return;
    }
    if (runs) this.#running.add(cell);
    else this.#running.delete(cell);
    this.listener.cell(cell.notebook.uri.toString(), runs);
  }
}

/** Whether a cell is running. A cleared cell has no number; a cell that has ended has a time or a success flag. */
const runs = ({ executionOrder, success, timing }: NotebookCellExecutionSummary): boolean =>
  executionOrder !== undefined && success === undefined && !timing;

export const nameOf = (path: string): string => Uri.parse(path).path.split("/").at(-1) ?? path;

const placeOf = ({ uri }: NotebookDocument): Place => ({ path: uri.toString(), label: nameOf(uri.toString()) });

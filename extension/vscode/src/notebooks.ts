/** Follows the notebooks: which are open, which one has the focus, and when their cells start and end. */

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
  /** A cell has started, or has ended. */
  cell(path: string, hasStarted: boolean): void;
  /** A notebook was opened, or was closed. */
  opened(path: string, isOpen: boolean): void;
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
      listen<unknown>(changed, () => this.#updateFocus() && listener.places(), signal);
    }
    listen(workspace.onDidOpenNotebookDocument, (notebook) => this.#onOpened(notebook, true), signal);
    listen(workspace.onDidCloseNotebookDocument, (notebook) => this.#onOpened(notebook, false), signal);
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
          if (now && (now.executionOrder !== undefined || this.#running.has(cell))) this.#onCell(cell, isRunning(now));
      },
      signal,
    );
    this.#updateFocus();
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
    // A deleted cell has the index −1.
    return [...this.#running].filter(({ notebook, index }) => index >= 0 && notebook.uri.toString() === path).length;
  }

  /** Updates the focused notebook, and returns whether it has changed. */
  #updateFocus(): boolean {
    // After a reload of the window, it can happen that no notebook has the focus. Then a visible one is taken.
    const editor = window.activeNotebookEditor ?? (this.focused ? undefined : window.visibleNotebookEditors[0]);
    const notebook = editor?.notebook;
    if (!notebook || !TYPES.has(notebook.notebookType)) return false; // a text file, or one of our views
    const followsFocus = workspace.getConfiguration("residscope").get("followFocus", true);
    if (this.focused && !followsFocus && this.isOpen(this.focused.path)) return false;
    this.focused = placeOf(notebook);
    return true;
  }

  #onOpened(notebook: NotebookDocument, isOpen: boolean): void {
    if (!TYPES.has(notebook.notebookType)) return;
    const { path } = placeOf(notebook);
    for (const cell of [...this.#running]) if (cell.notebook === notebook) this.#running.delete(cell);
    this.listener.opened(path, isOpen);
    if (!isOpen && this.focused?.path === path) this.focused = this.running[0] ?? null;
    this.listener.places();
  }

  #onCell(cell: NotebookCell, isRunning: boolean): void {
    if (this.#running.has(cell) === isRunning) {
      // The start of a short cell may not be reported.
      if (!isRunning) this.listener.cell(cell.notebook.uri.toString(), false);
      return;
    }
    if (isRunning) this.#running.add(cell);
    else this.#running.delete(cell);
    this.listener.cell(cell.notebook.uri.toString(), isRunning);
  }
}

/** Whether a cell is running. A cleared cell has no execution number. A cell that has ended has a time or a result. */
const isRunning = ({ executionOrder, success, timing }: NotebookCellExecutionSummary): boolean =>
  executionOrder !== undefined && success === undefined && !timing;

export const nameOf = (path: string): string => Uri.parse(path).path.split("/").at(-1) ?? path;

const placeOf = ({ uri }: NotebookDocument): Place => ({ path: uri.toString(), label: nameOf(uri.toString()) });

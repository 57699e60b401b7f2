// As much of VS Code as the extension asks, with the types of the real one; a test sets what it answers.
import type * as real from "vscode";

export class EventEmitter<T> {
  readonly #listeners = new Set<(value: T) => unknown>();
  readonly event: real.Event<T> = (listener, self) => {
    const bound = (value: T): unknown => listener.call(self, value);
    this.#listeners.add(bound);
    return { dispose: () => void this.#listeners.delete(bound) };
  };
  get listeners(): number {
    return this.#listeners.size;
  }
  fire(value: T): void {
    for (const listener of [...this.#listeners]) listener(value);
  }
}

export class Uri {
  constructor(readonly text: string) {}
  static parse(text: string, strict = false): Uri {
    if (strict && !/^\w[\w.+-]*:/.test(text)) throw new Error(`[UriError]: Scheme is missing: ${text}`);
    return new Uri(text);
  }
  get path(): string {
    return decodeURIComponent(new URL(this.text).pathname);
  }
  toString(): string {
    return this.text;
  }
}

export const told = {
  opened: new EventEmitter<real.NotebookDocument>(),
  closed: new EventEmitter<real.NotebookDocument>(),
  changed: new EventEmitter<real.NotebookDocumentChangeEvent>(),
  active: new EventEmitter<real.NotebookEditor | undefined>(),
  visible: new EventEmitter<readonly real.NotebookEditor[]>(),
};

export const settings: Record<string, unknown> = {};

export const workspace = {
  isTrusted: true,
  notebookDocuments: [] as real.NotebookDocument[],
  onDidOpenNotebookDocument: told.opened.event,
  onDidCloseNotebookDocument: told.closed.event,
  onDidChangeNotebookDocument: told.changed.event,
  getConfiguration: () => ({ get: (name: string, otherwise: unknown) => settings[name] ?? otherwise }),
};

export const window = {
  activeNotebookEditor: undefined as real.NotebookEditor | undefined,
  visibleNotebookEditors: [] as real.NotebookEditor[],
  onDidChangeActiveNotebookEditor: told.active.event,
  onDidChangeVisibleNotebookEditors: told.visible.event,
};

/** What `getExtension` finds. */
export const installed = new Map<string, Pick<real.Extension<unknown>, "isActive" | "exports" | "activate">>();
export const extensions = { getExtension: (id: string) => installed.get(id) };

// A fake of the parts of VS Code that the extension uses, with the types of the real API. A test sets its state.
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
  static joinPath(base: Uri, ...names: string[]): Uri {
    return new Uri([base.text, ...names].join("/"));
  }
  get path(): string {
    return decodeURIComponent(new URL(this.text).pathname);
  }
  toString(): string {
    return this.text;
  }
}

export const events = {
  opened: new EventEmitter<real.NotebookDocument>(),
  closed: new EventEmitter<real.NotebookDocument>(),
  changed: new EventEmitter<real.NotebookDocumentChangeEvent>(),
  active: new EventEmitter<real.NotebookEditor | undefined>(),
  visible: new EventEmitter<readonly real.NotebookEditor[]>(),
  renamed: new EventEmitter<real.FileRenameEvent>(),
};

/** A file system. The files are in the order in which they were written, and a file's time is its index. */
export const files = new Map<string, Uint8Array>();
const contentOf = (uri: Uri): Uint8Array => {
  const bytes = files.get(uri.text);
  if (!bytes) throw new Error("EntryNotFound");
  return bytes;
};
const fs = {
  stat: async (uri: Uri) => ({ size: contentOf(uri).length, mtime: [...files.keys()].indexOf(uri.text) }),
  readFile: async (uri: Uri) => contentOf(uri),
  writeFile: async (uri: Uri, bytes: Uint8Array) => void (files.delete(uri.text), files.set(uri.text, bytes)),
  readDirectory: async (uri: Uri) =>
    [...files.keys()]
      .filter((name) => name.startsWith(`${uri.text}/`))
      .map((name) => [name.slice(uri.text.length + 1), FileType.File]),
  delete: async (uri: Uri) => void files.delete(uri.text),
  rename: async (from: Uri, to: Uri) => void (files.set(to.text, contentOf(from)), files.delete(from.text)),
};
export enum FileType {
  File = 1,
}

export const settings: Record<string, unknown> = {};

export const workspace = {
  isTrusted: true,
  fs,
  notebookDocuments: [] as real.NotebookDocument[],
  onDidOpenNotebookDocument: events.opened.event,
  onDidCloseNotebookDocument: events.closed.event,
  onDidChangeNotebookDocument: events.changed.event,
  onDidRenameFiles: events.renamed.event,
  getConfiguration: () => ({ get: (name: string, otherwise: unknown) => settings[name] ?? otherwise }),
};

export const window = {
  activeNotebookEditor: undefined as real.NotebookEditor | undefined,
  visibleNotebookEditors: [] as real.NotebookEditor[],
  onDidChangeActiveNotebookEditor: events.active.event,
  onDidChangeVisibleNotebookEditors: events.visible.event,
};

/** The extensions that `getExtension` finds. */
export const installed = new Map<string, Pick<real.Extension<unknown>, "isActive" | "exports" | "activate">>();
/** The commands that were run. */
export const ran: string[] = [];
export const commands = { executeCommand: async (name: string) => void ran.push(name) };
export const extensions = { getExtension: (id: string) => installed.get(id) };

/**
 * Stores the last pictures of views in files, to show them after the window was reloaded. The page checks each picture
 * before it is drawn (`checkSnapshot`), because a stored file is not trusted.
 */

import { createHash } from "node:crypto";
import { FileType, Uri, workspace } from "vscode";

/** At most this many pictures are kept: those that were stored last. */
const MAX_PICTURES = 20;
/** A larger picture is neither stored nor read. */
const MAX_BYTES = 3_000_000;

export class Pictures {
  /** The last operation. Operations run one after the other. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(readonly folder: Uri) {}

  /** The picture of a notebook's cache, as the page wrote it; null if there is none, or if it cannot be read. */
  get(path: string, name: string): Promise<string | null> {
    const file = this.#file(path, name);
    return this.#afterLast(async () => {
      const { size } = await workspace.fs.stat(file);
      return size > MAX_BYTES ? null : new TextDecoder().decode(await workspace.fs.readFile(file));
    });
  }

  put(path: string, name: string, picture: string): void {
    const bytes = new TextEncoder().encode(picture);
    if (bytes.length > MAX_BYTES) return;
    void this.#afterLast(async () => {
      await workspace.fs.writeFile(this.#file(path, name), bytes); // also creates the folder
      const files = (await this.#files()).sort((a, b) => b.changed - a.changed);
      for (const { uri } of files.slice(MAX_PICTURES)) await workspace.fs.delete(uri);
    });
  }

  /** Moves the pictures of a renamed notebook to its new path. */
  move(from: string, to: string): void {
    void this.#afterLast(async () => {
      for (const { uri, file } of await this.#files()) {
        if (!file.startsWith(hashed(from))) continue;
        await workspace.fs.rename(uri, Uri.joinPath(this.folder, hashed(to) + file.slice(hashed(from).length)), {
          overwrite: true,
        });
      }
    });
  }

  #file(path: string, name: string): Uri {
    return Uri.joinPath(this.folder, `${hashed(path)}-${hashed(name)}.json`);
  }

  async #files(): Promise<{ uri: Uri; file: string; changed: number }[]> {
    const entries = (await workspace.fs.readDirectory(this.folder)).filter(([, type]) => type === FileType.File);
    return Promise.all(
      entries.map(async ([file]) => {
        const uri = Uri.joinPath(this.folder, file);
        return { uri, file, changed: (await workspace.fs.stat(uri)).mtime };
      }),
    );
  }

  /** Runs an operation after the earlier ones. Errors are ignored: the result is null. */
  #afterLast<T>(operation: () => Promise<T>): Promise<T | null> {
    const done = this.#last.then(operation).catch(() => null);
    this.#last = done;
    return done;
  }
}

const hashed = (text: string): string => createHash("sha256").update(text).digest("hex").slice(0, 24);

/** Keeps the last pictures of views while the window reloads, in one file each. Stored files are not trusted. */

import { createHash } from "node:crypto";
import { FileType, Uri, workspace } from "vscode";

/** The most pictures that are kept; the latest are. */
const MOST = 20;
/** The most bytes of one picture; views make no larger ones. */
const LONGEST = 3_000_000;

export class Pictures {
  /** The last operation: they run one after the other. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(readonly folder: Uri) {}

  /** The picture of a notebook's cache, as the page wrote it; null if there is none. */
  get(path: string, name: string): Promise<string | null> {
    const file = this.#file(path, name);
    return this.#then(async () => {
      const { size } = await workspace.fs.stat(file);
      return size > LONGEST ? null : new TextDecoder().decode(await workspace.fs.readFile(file));
    });
  }

  put(path: string, name: string, picture: string): void {
    const bytes = new TextEncoder().encode(picture);
    if (bytes.length > LONGEST) return;
    void this.#then(async () => {
      await workspace.fs.writeFile(this.#file(path, name), bytes); // also creates the folder
      const files = (await this.#files()).sort((a, b) => b.changed - a.changed);
      for (const { uri } of files.slice(MOST)) await workspace.fs.delete(uri);
    });
  }

  /** Follows a renamed notebook. */
  move(from: string, to: string): void {
    void this.#then(async () => {
      for (const { uri, file } of await this.#files()) {
        if (!file.startsWith(named(from))) continue;
        await workspace.fs.rename(uri, Uri.joinPath(this.folder, named(to) + file.slice(named(from).length)), {
          overwrite: true,
        });
      }
    });
  }

  #file(path: string, name: string): Uri {
    return Uri.joinPath(this.folder, `${named(path)}-${named(name)}.json`);
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

  /** Runs an operation after the others. A picture that cannot be written or read is ignored. */
  #then<T>(body: () => Promise<T>): Promise<T | null> {
    const done = this.#last.then(body).catch(() => null);
    this.#last = done;
    return done;
  }
}

const named = (text: string): string => createHash("sha256").update(text).digest("hex").slice(0, 24);

/** Copies the example notebook into a folder of the user. */

import { PathExt } from "@jupyterlab/coreutils";
import type { Contents } from "@jupyterlab/services";

const STEM = "residscope-example";

/** The first of the names "residscope-example.ipynb", "residscope-example-1.ipynb", … that is not taken. */
export function freeName(taken: Iterable<string>): string {
  const names = new Set([...taken].map((name) => name.toLowerCase())); // some file systems ignore case
  for (let copy = 0; ; copy++) {
    const name = copy === 0 ? `${STEM}.ipynb` : `${STEM}-${copy}.ipynb`;
    if (!names.has(name)) return name;
  }
}

/** Writes a new copy of the example notebook into `folder`, without overwriting anything, and returns its path. */
export async function copyExample(contents: Contents.IManager, folder: string): Promise<string> {
  const listing = await contents.get(folder, { content: true, type: "directory" });
  const entries = listing.content as Contents.IModel[];
  const path = PathExt.join(folder, freeName(entries.map((entry) => entry.name)));
  const { default: content } = await import("../../../py_backend/residscope/demo/example.ipynb");
  await contents.save(path, { type: "notebook", format: "json", content });
  return path;
}

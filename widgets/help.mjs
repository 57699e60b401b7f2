// The texts of "Help": the chapters of py_backend/docs, as Markdown, in one file. Pictures stay out, because the
// package is kept small. Hosts read the file beside their bundle, and the kernel reads the one in the Python package.
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const docs = join(here, "..", "py_backend", "docs");

/** The names of the chapters, in their order (src/base/chapters.ts). */
export async function chapterNames() {
  const { transform } = await import("esbuild");
  const source = readFileSync(join(here, "src", "base", "chapters.ts"), "utf8");
  const { code } = await transform(source, { loader: "ts", format: "esm" });
  return Object.keys((await import(`data:text/javascript,${encodeURIComponent(code)}`)).CHAPTERS);
}

/**
 * A chapter without pictures, without links to pictures or to chapters that are not in `names`, and without text about
 * `npm run docs`. In tables, bars inside code are escaped: VS Code needs this, the documentation site does not.
 */
export function forHelp(text, names) {
  return text
    .replace(/^!\[[^\]]*\]\([^)]*\)\n\n?/gm, "")
    .replace(/^(?:\[[^\]]*\]\(pictures\/[^)]*\)[,.]?\s*)+\n/gm, "")
    .replace(/^<!--.*?-->\n\n?/gm, "")
    .replace(/\[([^\]]+)\]\(([\w-]+)\.md(?:#[^)]*)?\)/g, (link, words, name) => (names.includes(name) ? link : words))
    .replace(/\s+Made\s+by\s+`npm run docs`;\s+do\s+not\s+edit\./g, "")
    .replace(/^\|.*$/gm, (row) => row.replace(/`[^`]+`/g, (code) => code.replace(/(?<!\\)\|/g, "\\|")));
}

/** The text of each chapter, by its name. */
export async function chapterTexts() {
  const names = await chapterNames();
  const read = (name) => [name, forHelp(readFileSync(join(docs, `${name}.md`), "utf8"), names)];
  return Object.fromEntries(names.map(read));
}

/**
 * No line beyond 120 columns: `node .dev/columns.mjs` looks at every file of the repository, `… FILE …` at these.
 *
 * Not looked at: what a program writes, rows of tables, a Markdown line that is one word (an address), and what is said
 * to checkers at the end of a line, and a regular expression that is a line's only content.
 */

import { readFileSync } from "node:fs";
import { ask, Failure, inRoot, main } from "./lib.mjs";

const WIDTH = 120;
const KINDS = /\.(py|ts|mjs|cjs|css|md|toml|yaml|yml)$/;
const WRITTEN = [
  /\.gen\.ts$/,
  /^py_backend\/docs\/(architectures|padding|points|precision|tutorial|why)\.md$/, // by `npm run docs`
];

const PRAGMA = /\s*# (pyright|type|noqa|fmt)\b.*$/; // it stands where it stands

const REGEXP = /^\s*(return )?\/.*\/[a-z]*(\.test\()?[,;]?$/; // it cannot be broken

/** The numbers of the lines that are too long. Characters are counted, not bytes. */
function tooLong(file) {
  const isMarkdown = file.endsWith(".md");
  const isFree = (line) => (isMarkdown ? line.startsWith("|") || !/\S\s+\S/.test(line) : REGEXP.test(line));
  return readFileSync(inRoot(file), "utf8")
    .split(/\r?\n/)
    .flatMap((line, at) => ([...line.replace(PRAGMA, "")].length > WIDTH && !isFree(line) ? [at + 1] : []));
}

main(() => {
  const given = process.argv.slice(2);
  const files = given.length > 0 ? given : ask("git", ["ls-files"]).split("\n");
  const wanted = files.filter((file) => KINDS.test(file) && !WRITTEN.some((pattern) => pattern.test(file)));
  const found = wanted.flatMap((file) => tooLong(file).map((line) => `${file}:${line}`));
  if (found.length > 0)
    throw new Failure(`${found.length} lines are longer than ${WIDTH} columns:\n${found.join("\n")}`);
});

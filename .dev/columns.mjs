/**
 * Checks that no line is longer than 120 columns. `node .dev/columns.mjs` checks every tracked file, and
 * `node .dev/columns.mjs FILE …` only these files. Files whose extension is not in `KINDS` are left out.
 *
 * Also left out are `.gen.ts` files, six generated documents, lines with only a regular expression, and comments for
 * Python checkers at the end of a line. In Markdown, table rows and lines without white space inside (such as long
 * links) are left out, too.
 */

import { readFileSync } from "node:fs";
import { ask, Failure, inRoot, main } from "./lib.mjs";

const WIDTH = 120;
const KINDS = /\.(py|ts|mjs|cjs|css|md|toml|yaml|yml)$/;
const GENERATED = [
  /\.gen\.ts$/,
  /^py_backend\/docs\/(architectures|padding|points|precision|tutorial|why)\.md$/, // by `npm run docs`
];

const PRAGMA = /\s*# (pyright|type|noqa|fmt)\b.*$/; // the comment must be on the line that it is about

const REGEXP = /^\s*(return )?\/[^*].*\/[a-z]*(\.test\()?[,;]?$/; // a regular expression cannot be divided

/** The numbers of the lines that are too long. Characters are counted, not bytes. */
function tooLong(file) {
  const isMarkdown = file.endsWith(".md");
  const isAllowed = (line) => (isMarkdown ? line.startsWith("|") || !/\S\s+\S/.test(line) : REGEXP.test(line));
  return readFileSync(inRoot(file), "utf8")
    .split(/\r?\n/)
    .flatMap((line, index) => ([...line.replace(PRAGMA, "")].length > WIDTH && !isAllowed(line) ? [index + 1] : []));
}

main(() => {
  const fromUser = process.argv.slice(2);
  const files = fromUser.length > 0 ? fromUser : ask("git", ["ls-files"]).split("\n");
  const checked = files.filter((file) => KINDS.test(file) && !GENERATED.some((pattern) => pattern.test(file)));
  const found = checked.flatMap((file) => tooLong(file).map((line) => `${file}:${line}`));
  if (found.length > 0)
    throw new Failure(`${found.length} lines are longer than ${WIDTH} columns:\n${found.join("\n")}`);
});

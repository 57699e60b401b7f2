// Writes the files that TypeScript gets from Python. With --check, it only reports files that are out of date.
// py_backend/residscope/wire/protocol.py → src/wire/protocol.gen.ts (types), src/wire/protocol.check.gen.ts (checks of
// what comes from outside); py_backend/residscope/base/look.py → src/base/look.gen.ts (colours and marks).
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { compile } from "json-schema-to-typescript";
import { checks } from "./checks.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const repo = dirname(here);
const venv = join(repo, ".venv", "bin", "python");
const python = process.env.RESIDSCOPE_PYTHON ?? (existsSync(venv) ? venv : "python3");

/** The JSON that a module of the package prints. */
const told = (module) =>
  JSON.parse(
    execFileSync(python, ["-m", `residscope.${module}`], {
      encoding: "utf8",
      env: { ...process.env, PYTHONPATH: join(repo, "py_backend") },
    }),
  );

const schema = told("wire.protocol");
const types =
  (await compile(schema, "Wire", {
    additionalProperties: false,
    bannerComment: "// Generated from py_backend/residscope/wire/protocol.py by `npm run protocol`. Do not edit.",
    unreachableDefinitions: true,
    ignoreMinAndMaxItems: true, // otherwise short lists become tuples
    style: { printWidth: 120 },
  })) +
  `
/**
 * Identifies the version of the wire: the value of \`residscope.wire.protocol.wire()\` in a kernel that this page works
 * with.
 */
export const WIRE = "${schema.$comment}";
`;

const { MARKS, SIGNS, DIVERGING, SEQUENTIAL } = told("base.look");
const written = (value) =>
  JSON.stringify(value, null, 2)
    .replace(/\[\s+(\S+),\s+(\S+)\s+\]/g, "[$1, $2]")
    .replaceAll("\u00a0", "\\u00a0");
const look = `// Generated from py_backend/residscope/base/look.py by \`npm run protocol\`. Do not edit.
/** A point of the scale, from 0 to 1, and its colour. */
export type Stop = readonly [at: number, hex: string];
/** The visible marks for white space. */
export const MARKS: Record<string, string> = ${written(MARKS)};
/** The colours of text and lines for positive and negative values. */
export const SIGNS: Record<"light" | "dark", { plus: string; minus: string }> = ${written(SIGNS)};
type Diverging = { middle: string; plus: Stop[]; minus: Stop[] };
export const DIVERGING: Record<"light" | "dark", Diverging> = ${written(DIVERGING)};
export const SEQUENTIAL: Record<"light" | "dark", Stop[]> = ${written(SEQUENTIAL)};
`;

for (const [name, text] of [
  ["wire/protocol.gen.ts", types],
  ["wire/protocol.check.gen.ts", checks(schema)],
  ["base/look.gen.ts", look],
]) {
  const file = join(here, "src", name);
  const current = existsSync(file) ? readFileSync(file, "utf8") : "";
  if (current === text) continue;
  if (process.argv.includes("--check")) {
    console.error(`widgets/src/${name} does not match the Python code: run \`npm run protocol\`.`);
    process.exitCode = 1;
  } else writeFileSync(file, text);
}

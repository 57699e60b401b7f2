// Writes src/wire/protocol.gen.ts (types) and src/wire/protocol.check.gen.ts (checks of what comes from outside) from
// the one schema, py_backend/residscope/wire/protocol.py. With --check: says whether both are current.
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

const schema = JSON.parse(
  execFileSync(python, ["-m", "residscope.wire.protocol"], {
    encoding: "utf8",
    env: { ...process.env, PYTHONPATH: join(repo, "py_backend") },
  }),
);
const types =
  (await compile(schema, "Wire", {
    additionalProperties: false,
    bannerComment: "// Generated from py_backend/residscope/wire/protocol.py by `npm run protocol`. Do not edit.",
    unreachableDefinitions: true,
    ignoreMinAndMaxItems: true, // or else short lists become tuples
    style: { printWidth: 120 },
  })) +
  `
/** What tells one wire from another: \`residscope.wire.protocol.wire()\` of the kernel that understands this. */
export const WIRE = "${schema.$comment}";
`;

for (const [name, text] of [
  ["protocol.gen.ts", types],
  ["protocol.check.gen.ts", checks(schema)],
]) {
  const file = join(here, "src", "wire", name);
  const current = existsSync(file) ? readFileSync(file, "utf8") : "";
  if (current === text) continue;
  if (process.argv.includes("--check")) {
    console.error(`widgets/src/wire/${name} is not what the schema gives: run \`npm run protocol\`.`);
    process.exitCode = 1;
  } else writeFileSync(file, text);
}

// Writes src/protocol.gen.ts from the one schema, py_backend/residscope/protocol.py. With --check: says whether it is current.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { compile } from "json-schema-to-typescript";

const here = dirname(fileURLToPath(import.meta.url));
const repo = dirname(here);
const target = join(here, "src", "protocol.gen.ts");
const venv = join(repo, ".venv", "bin", "python");
const python = process.env.RESIDSCOPE_PYTHON ?? (existsSync(venv) ? venv : "python3");

const schema = JSON.parse(
  execFileSync(python, ["-m", "residscope.protocol"], {
    encoding: "utf8",
    env: { ...process.env, PYTHONPATH: join(repo, "py_backend") },
  }),
);
const types = await compile(schema, "Wire", {
  additionalProperties: false,
  bannerComment: "// Generated from py_backend/residscope/protocol.py by `npm run protocol`. Do not edit.",
  unreachableDefinitions: true,
  style: { printWidth: 120 },
}) + `
/** What tells one wire from another: \`residscope.protocol.wire()\` of the kernel that understands this. */
export const WIRE = "${schema.$comment}";
`;

if (process.argv.includes("--check")) {
  const current = existsSync(target) ? readFileSync(target, "utf8") : "";
  if (current !== types) {
    console.error("widgets/src/protocol.gen.ts is stale: run `npm run protocol` in widgets/.");
    process.exit(1);
  }
} else {
  writeFileSync(target, types);
}

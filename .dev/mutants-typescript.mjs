/**
 * Mutation testing of the TypeScript code. Stryker puts mistakes ("mutants") into the code, one at a time, and counts
 * those that make a test fail. widgets/stryker.config.mjs lists the mutated files. This is not part of `npm test`,
 * because it takes long: for each mutant that no test notices, all tests that cover its line are run.
 *
 *   node .dev/mutants-typescript.mjs                     a sample: 12 mutants of each file
 *   node .dev/mutants-typescript.mjs --each 30 --seed 1  a larger sample, with another seed
 *   node .dev/mutants-typescript.mjs --all               all mutants (hours)
 *   node .dev/mutants-typescript.mjs csv.ts format.ts    only mutants of these files
 *   … --list                                             only lists the mutants that would be tried
 *   … --survivors                                        only mutants that survived when they were last tried
 *
 * The sample depends only on the seed and on the mutants' texts, not on their line numbers. So lines that move do not
 * change the sample. No test can detect a mutant that is equivalent to the code. Such mutants do not count:
 * tests/mutants/typescript.json lists them with the reason. The report goes to test-results/mutants/.
 */

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

import { FILES, REPORT } from "../widgets/stryker.config.mjs";
import { keyOf } from "../widgets/stryker.sample.mjs";
import { Failure, inRoot, isScript, main, root, run } from "./lib.mjs";

const CHOSEN = inRoot("test-results", "mutants", "typescript-chosen.json");
/** The last status of each mutant, by name. */
const KNOWN = inRoot("test-results", "mutants", "typescript-known.json");
const known = () => (existsSync(KNOWN) ? JSON.parse(readFileSync(KNOWN, "utf8")) : {});
const ALIVE = ["Survived", "NoCoverage"];
const EQUIVALENT = inRoot("tests", "mutants", "typescript.json");

const SOURCES = "widgets/src";

/** The files that match the patterns. Each pattern begins with `SOURCES`; "*" is part of a name, "**" any folders. */
function filesOf(patterns) {
  const files = readdirSync(inRoot(SOURCES), { recursive: true }).map((file) => `${SOURCES}/${file}`);
  return patterns.flatMap((pattern) => {
    const parts = pattern.split(/(\*\*\/|\*)/).map((part) => ({ "**/": "(.*/)?", "*": "[^/]*" })[part] ?? part);
    const whole = new RegExp(`^${parts.join("").replaceAll(".ts", "\\.ts")}$`);
    return files.filter((file) => whole.test(file)).sort();
  });
}

/** All mutants that Stryker makes of these files. */
async function mutantsOf(files) {
  const core = createRequire(createRequire(inRoot("widgets", "package.json")).resolve("@stryker-mutator/core"));
  const load = (name) => import(pathToFileURL(core.resolve(name)).href);
  const [{ createInstrumenter }, { createInjector }] = await Promise.all([
    load("@stryker-mutator/instrumenter"),
    load("typed-inject"),
  ]);
  const silent = Object.fromEntries(
    ["trace", "debug", "info", "warn", "error", "fatal"].flatMap((level) => [
      [level, () => {}],
      [`is${level[0].toUpperCase()}${level.slice(1)}Enabled`, () => false],
    ]),
  );
  const instrumenter = createInjector().provideValue("logger", silent).injectFunction(createInstrumenter);
  const sources = new Map(files.map((file) => [file, readFileSync(inRoot(file), "utf8")]));
  const { mutants } = await instrumenter.instrument(
    files.map((file) => ({ name: inRoot(file), mutate: true, content: sources.get(file) })),
    { plugins: null, excludedMutations: [], ignorers: [], noHeader: true },
  );
  return files.flatMap((file) =>
    described(
      file,
      sources.get(file),
      mutants.filter(({ fileName }) => fileName === inRoot(file)),
    ),
  );
}

/**
 * Describes each mutant. `nth` numbers the mutants that have the same text and the same first line. A mutant's name
 * changes only if its text or its `nth` changes.
 */
function described(file, source, mutants) {
  const lines = source.split("\n");
  const seen = new Map();
  return mutants.map((mutant) => {
    const { start, end } = mutant.location;
    const original = lines
      .slice(start.line, end.line + 1)
      .map((line, i, { length }) => line.slice(i === 0 ? start.column : 0, i === length - 1 ? end.column : undefined))
      .join("\n");
    const text = JSON.stringify([file, mutant.mutatorName, lines[start.line].trim(), original, mutant.replacement]);
    const nth = (seen.get(text) ?? 0) + 1;
    seen.set(text, nth);
    return {
      file,
      in: lines[start.line].trim(),
      line: start.line + 1,
      original,
      replacement: mutant.replacement,
      mutator: mutant.mutatorName,
      nth,
      key: keyOf(mutant),
      name: `${text} ${nth}`,
    };
  });
}

const orderKey = (seed, { name }) => createHash("sha256").update(`${seed}\0${name}`).digest("hex");

function sampled(mutants, seed, each) {
  const ranked = mutants.map((mutant) => [orderKey(seed, mutant), mutant]).sort(([a], [b]) => (a < b ? -1 : 1));
  const taken = new Map();
  return ranked.flatMap(([, mutant]) => {
    taken.set(mutant.file, (taken.get(mutant.file) ?? 0) + 1);
    return taken.get(mutant.file) <= each ? [mutant] : [];
  });
}

/** The status of each mutant in Stryker's report, by key. */
function statuses() {
  const { files } = JSON.parse(readFileSync(inRoot(REPORT), "utf8"));
  const minusOne = ({ line, column }) => ({ line: line - 1, column: column - 1 });
  return new Map(
    Object.entries(files).flatMap(([fileName, { mutants }]) =>
      mutants.map((mutant) => {
        const { start, end } = mutant.location;
        return [
          keyOf({ ...mutant, fileName: inRoot(fileName), location: { start: minusOne(start), end: minusOne(end) } }),
          mutant.status,
        ];
      }),
    ),
  );
}

/** Returns a function that says whether a mutant is listed as equivalent. */
function knownEquivalent() {
  const list = existsSync(EQUIVALENT) ? JSON.parse(readFileSync(EQUIVALENT, "utf8")) : [];
  const same = (entry, mutant) =>
    ["file", "in", "mutator", "original", "replacement", "nth"].every((field) => entry[field] === mutant[field]);
  return (mutant) => list.some((entry) => same(entry, mutant));
}

const percent = (part, whole) => (whole === 0 ? "–" : `${((100 * part) / whole).toFixed(0)} %`);

/** The results as a table: one row for each file, and one for all. */
function table(mutants) {
  const columns = ["file", "mutants", "killed", "survived", "no coverage", "timeout", "equivalent", "score"];
  const row = (name, of) => {
    const count = (...wanted) => of.filter(({ status }) => wanted.includes(status)).length;
    const [killed, timeout] = [count("Killed", "RuntimeError"), count("Timeout")];
    return [
      name,
      of.length,
      killed,
      count("Survived"),
      count("NoCoverage"),
      timeout,
      count("equivalent"),
      percent(killed + timeout, of.length - count("equivalent")),
    ];
  };
  const files = [...new Set(mutants.map(({ file }) => file))].sort();
  const rows = [
    columns,
    ...files.map((file) =>
      row(
        file.replace("widgets/src/", ""),
        mutants.filter((mutant) => mutant.file === file),
      ),
    ),
    row("all", mutants),
  ];
  const widths = columns.map((_, i) => Math.max(...rows.map((cells) => String(cells[i]).length)));
  const line = (cells) =>
    `| ${cells.map((cell, i) => String(cell)[i === 0 ? "padEnd" : "padStart"](widths[i])).join(" | ")} |`;
  const rules = widths.map((width, i) => (i === 0 ? "-".repeat(width + 2) : `${"-".repeat(width + 1)}:`));
  const rule = `|${rules.join("|")}|`;
  return [line(rows[0]), rule, ...rows.slice(1).map(line)].join("\n");
}

const oneLine = (text) => text.replace(/\s+/g, " ");

/** Tries a sample of the mutants, or all, or those that survived last time. Returns them with their status. */
export async function tryMutants({
  all = false,
  seed = "0",
  each = 12,
  only = [],
  survivors = false,
  list = false,
} = {}) {
  const files = filesOf(FILES).filter(
    (file) => only.length === 0 || only.some((name) => file === name || file.endsWith(`/${name}`)),
  );
  if (files.length === 0) throw new Failure(`No mutated file is called ${only.join(" or ")}.`);
  const equivalent = knownEquivalent();
  const mutants = await mutantsOf(files);
  const before = known();
  const chosen = all ? mutants : sampled(mutants, seed, each);
  const tried = chosen.filter((mutant) => !equivalent(mutant) && (!survivors || ALIVE.includes(before[mutant.name])));
  if (list) return chosen.map((mutant) => ({ ...mutant, status: equivalent(mutant) ? "equivalent" : "" }));
  mkdirSync(dirname(CHOSEN), { recursive: true });
  writeFileSync(CHOSEN, JSON.stringify(tried.map(({ key }) => key)));
  const stryker = join(
    dirname(createRequire(inRoot("widgets", "package.json")).resolve("@stryker-mutator/core/package.json")),
    "bin",
    "stryker.js",
  );
  const touched = [...new Set(tried.map(({ file }) => file))];
  const workers = String(Math.min(2, availableParallelism()));
  if (touched.length > 0)
    run(
      process.execPath,
      [stryker, "run", "widgets/stryker.config.mjs", "--mutate", touched.join(","), "--concurrency", workers],
      { cwd: root, env: { ...process.env, RESIDSCOPE_MUTANTS: CHOSEN }, called: "stryker run" },
    );
  const found = touched.length > 0 ? statuses() : new Map();
  for (const { key, name } of tried) before[name] = found.get(key);
  writeFileSync(KNOWN, JSON.stringify(before, null, 1));
  return chosen.map((mutant) => ({
    ...mutant,
    status: equivalent(mutant) ? "equivalent" : (before[mutant.name] ?? "not tried"),
  }));
}

if (isScript(import.meta)) {
  main(async () => {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        all: { type: "boolean" },
        survivors: { type: "boolean" },
        list: { type: "boolean" },
        seed: { type: "string", default: "0" },
        each: { type: "string", default: "12" },
      },
    });
    const each = Number(values.each);
    if (!Number.isInteger(each) || each < 1)
      throw new Failure("--each needs a whole number: how many mutants of each file to try.");
    const mutants = await tryMutants({ ...values, each, only: positionals });
    const shown = mutants.filter(({ status }) => values.list || ALIVE.includes(status));
    for (const { file, line, mutator, original, replacement, status } of shown)
      console.log(`${file}:${line} ${status} ${mutator}\n  - ${oneLine(original)}\n  + ${oneLine(replacement)}`);
    console.log(`\n${table(mutants)}`);
  });
}

/**
 * `npm test`: sets up, then runs all checks, then the tests. It does not run those of `npm run test:hosts` and
 * `npm run test:vscode`.
 *
 * `npm test -- python browser` runs only the steps with these names. A step with `beside` starts in the background, at
 * the same time as the step that `beside` names.
 */

import { availableParallelism } from "node:os";

import { findChromium } from "./chromium.mjs";
import {
  begin,
  environment,
  Failure,
  inRoot,
  main,
  npmCommand,
  python,
  run,
  step,
  stepEnd,
  stepsTogether,
  summary,
} from "./lib.mjs";
import { setUp } from "./setup.mjs";

const inPython = (...args) => run(python, ["-m", ...args]);
const inNode = (file, ...args) => [process.execPath, [inRoot(...file.split("/")), ...args]];
const inWorkspace = (script, workspace, ...args) => npmCommand("run", script, "--workspace", workspace, ...args);

// Two workers need two thirds of the time of one. More would not help: a page of JupyterLab uses a whole core, and so
// does PyTorch.
const workers = Math.min(2, availableParallelism());
// Neighbouring tests run in the same process, because they share models and kernels. If one process has no more tests,
// it takes over some of the other's.
const inParallel = ["-n", `${workers}`, "--dist", "worksteal"];

/** Checks, which run two at a time. Each uses one core. The longest comes first, so that it does not end last. */
const checks = [
  { name: "pyright", command: inNode("node_modules/pyright/index.js") },
  { name: "ruff", command: [python, ["-m", "ruff", "check", "."]] },
  { name: "format", command: [python, ["-m", "ruff", "format", "--check", "."]] },
  {
    name: "imports",
    command: [python, ["-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]],
  },
  { name: "columns", command: inNode(".dev/columns.mjs") },
  { name: "spelling", command: [python, ["-m", "codespell_lib", "."]] },
  { name: "imports widgets", command: inWorkspace("imports", "widgets") },
  { name: "biome", command: inNode("node_modules/@biomejs/biome/bin/biome", "check") },
  { name: "protocol", command: inWorkspace("protocol", "widgets", "--", "--check") },
  { name: "tsc widgets", command: inWorkspace("typecheck", "widgets") },
  { name: "tsc jupyterlab", command: inWorkspace("typecheck", "extension/jupyterlab") },
  { name: "tsc vscode", command: inWorkspace("typecheck", "extension/vscode") },
  { name: "pyright tests", command: inNode("node_modules/pyright/index.js", "-p", "tests") },
  { name: "vitest widgets", command: inWorkspace("test", "widgets") },
  { name: "vitest vscode", command: inWorkspace("test", "extension/vscode") },
].map(({ name, command }) => ({ name, check: true, begin: () => begin(...command) }));

const steps = [
  ...checks,
  {
    name: "python",
    model: true,
    // One thread for each process: with more threads than cores, small matrix products wait for each other.
    work: () =>
      run(python, ["-m", "pytest", ...inParallel, "--durations=12", "tests/python", "tests/kernel"], {
        env: environment({ OMP_NUM_THREADS: "1" }),
      }),
  },
  { name: "versions", beside: "python", begin: () => begin(process.execPath, [inRoot(".dev", "versions.mjs")]) },
  { name: "site", model: true, work: () => inPython("tests.documents.site") },
  { name: "browser", model: true, work: testInBrowser },
];

/** Runs the browser tests. A missing browser is a failure, never a skip. If there are no tests, pytest fails. */
function testInBrowser() {
  const chromium = findChromium();
  console.log(`with ${chromium}`);
  const env = environment({ RESIDSCOPE_CHROMIUM: chromium });
  // One thread for each kernel, too: while other processes compute, PyTorch's threads mostly wait for each other. The
  // tests that measure times have all cores.
  const beside = { ...env, OMP_NUM_THREADS: "1" };
  run(python, ["-m", "pytest", ...inParallel, "-m", "not alone", "--durations=12", "tests/browser"], {
    env: beside,
  });
  run(python, ["-m", "pytest", "-m", "alone", "tests/browser"], { env });
}

function choose(words) {
  const unknown = words.filter((word) => !steps.some(({ name }) => name.split(" ").includes(word)));
  if (unknown.length > 0) {
    throw new Failure(`There is no step "${unknown[0]}"; the steps are: ${steps.map(({ name }) => name).join(", ")}.`);
  }
  return words.length === 0 ? steps : steps.filter(({ name }) => words.some((word) => name.split(" ").includes(word)));
}

main(async () => {
  const chosen = choose(process.argv.slice(2));
  setUp({ model: chosen.some(({ model }) => model) });
  // The tests with older releases mostly wait for installations, so other tests can run at the same time.
  const started = new Map();
  const isCheck = ({ check }) => check;
  await stepsTogether(chosen.filter(isCheck), workers);
  for (const { name, work, begin } of chosen.filter((one) => !isCheck(one))) {
    for (const other of chosen) if (other.beside === name) started.set(other.name, other.begin());
    if (work) step(name, work);
    else await stepEnd(name, started.get(name) ?? begin());
  }
  console.log("\nAll passed:");
  summary();
});

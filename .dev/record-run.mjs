/**
 * Records which tests ran with which version of Node, in the file that `RESIDSCOPE_RECORD` names. The class is a
 * reporter of vitest. For pytest, `tests/support/recorded_run.py` does the same.
 */

import { appendFileSync } from "node:fs";
import { machine, type } from "node:os";
import { relative, resolve } from "node:path";
import { root } from "./lib.mjs";

/** Adds a line, if there is a file. `start` is the `performance.now()` of the run's start. */
export function record(what, counts, start = 0) {
  if (!process.env.RESIDSCOPE_RECORD) return;
  const line = {
    what: [what],
    node: process.versions.node,
    system: `${type()} ${machine()}`,
    ...counts,
    seconds: Math.round((performance.now() - start) / 1000),
    date: new Date().toISOString().slice(0, 10),
  };
  appendFileSync(resolve(root, process.env.RESIDSCOPE_RECORD), `${JSON.stringify(line)}\n`);
}

export default class RecordedRun {
  #start = performance.now();
  #isWhole = true;

  onInit(vitest) {
    this.#isWhole = !vitest.filenamePattern?.length && !vitest.config.testNamePattern && !vitest.config.watch;
  }

  /** Records a run of all files that was not interrupted. A file that cannot be loaded counts as an error. */
  onTestRunEnd(modules, errors, reason) {
    if (!this.#isWhole || reason === "interrupted") return;
    const counts = { passed: 0, skipped: 0, failed: 0, error: errors.length };
    for (const module of modules) {
      counts.error += module.errors().length;
      for (const test of module.children.allTests()) counts[test.result().state]++;
    }
    record(`${relative(root, process.cwd()).replaceAll("\\", "/")}/test`, counts, this.#start);
  }
}

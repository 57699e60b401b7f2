/**
 * A reporter of vitest. It adds a line to the file that `RESIDSCOPE_RECORD` names, as `tests/support/recorded_run.py`
 * does for pytest: which tests ran with which version of Node.
 */

import { appendFileSync } from "node:fs";
import { arch, platform } from "node:os";
import { relative } from "node:path";
import { root } from "./lib.mjs";

export default class RecordedRun {
  #start = performance.now();

  onTestRunEnd(modules) {
    const counts = { passed: 0, skipped: 0, failed: 0 };
    for (const module of modules) for (const test of module.children.allTests()) counts[test.result().state]++;
    const line = {
      what: [`${relative(root, process.cwd()).replaceAll("\\", "/")}/test`],
      node: process.versions.node,
      system: `${platform()} ${arch()}`,
      ...counts,
      seconds: Math.round((performance.now() - this.#start) / 1000),
      date: new Date().toISOString().slice(0, 10),
    };
    appendFileSync(process.env.RESIDSCOPE_RECORD, `${JSON.stringify(line)}\n`);
  }
}

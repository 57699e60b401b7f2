/** `npm run setup`: from a fresh clone to a working tree. Run again, it does only what has changed. */

import { build, linkLabextension } from "./build.mjs";
import { isScript, main, python, run, step, summary } from "./lib.mjs";
import { setUpNode } from "./node.mjs";
import { setUpPython } from "./python.mjs";

/** Everything that running and testing need; `model: false` leaves the demo model for later. */
export function setUp({ model = true } = {}) {
  setUpPython();
  setUpNode();
  build();
  linkLabextension();
  if (model) step("Demo model", () => run(python, ["-m", "residscope.demo.cli", "demo", "--prepare-only"]));
}

if (isScript(import.meta)) {
  main(() => {
    setUp();
    console.log("\nReady:");
    summary();
  });
}

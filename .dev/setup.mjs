/** `npm run setup`: makes a fresh clone ready to use. When run again, it only does what has changed. */

import { build, linkLabextension } from "./build.mjs";
import { isScript, main, python, run, step, summary } from "./lib.mjs";
import { setUpNode } from "./node.mjs";
import { setUpPython } from "./python.mjs";

/** Sets up everything for running and testing; `model: false` leaves out the demo model. */
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

/** `npm run setup`: makes a new clone ready to use. If it is run again, it does only the steps whose inputs changed. */

import { build, linkLabextension } from "./build.mjs";
import { isScript, main, python, run, step, summary } from "./lib.mjs";
import { setUpNode } from "./node.mjs";
import { setUpPython } from "./python.mjs";

/** Sets up everything for running and testing, but without the demo model if `model` is false. */
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

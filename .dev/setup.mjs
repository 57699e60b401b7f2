/** `npm run setup`: from a fresh clone to a working tree. Run again, it does only what has changed. */

import { build, linkLabextension } from "./build.mjs";
import { Failure, fingerprint, inRoot, isScript, main, npm, python, run, step, stepIfChanged, summary } from "./lib.mjs";
import { setUpPython } from "./python.mjs";

const manifests = ["package.json", "package-lock.json", "widgets/package.json", "extension/jupyterlab/package.json"];

function setUpNode() {
  stepIfChanged("Node packages", "node", () => fingerprint(manifests), [inRoot("node_modules", ".package-lock.json")], () => {
    try {
      npm("ci", "--no-audit", "--no-fund");
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      console.log("The lock file does not fit the manifests: installing and updating it.");
      npm("install", "--no-audit", "--no-fund");
    }
  });
}

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

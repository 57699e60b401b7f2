/**
 * Installs the Node packages exactly as in the lock file. The lock file is never changed here, because a change should
 * be reviewed and committed.
 *
 * This script is also the `npm` that builds a wheel from a clone (see pyproject.toml): its `install` does the above.
 */

import { Failure, fingerprint, inRoot, isScript, main, npm, stepIfChanged } from "./lib.mjs";

const workspaces = ["widgets", "extension/jupyterlab", "extension/vscode"];
const manifests = [
  ".npmrc",
  "package.json",
  "package-lock.json",
  ...workspaces.map((folder) => `${folder}/package.json`),
];

export function setUpNode() {
  stepIfChanged(
    "Node packages",
    "node",
    () => fingerprint(manifests),
    [inRoot("node_modules", ".package-lock.json")],
    () => {
      try {
        npm("ci", "--no-audit", "--no-fund");
      } catch (error) {
        if (!(error instanceof Failure)) throw error;
        throw new Failure(
          `${error.message}: the packages of package-lock.json could not be installed; npm says why above. ` +
            "Nothing was changed. If it says that the lock file does not fit a package.json, run `npm install`, " +
            "look at what it changes in package-lock.json, and commit that.",
        );
      }
    },
  );
}

if (isScript(import.meta)) {
  main(() => {
    const [what, ...more] = process.argv.slice(2);
    if (what === "install") setUpNode();
    else npm(what, ...more);
  });
}

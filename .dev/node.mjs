/**
 * Installs exactly the Node packages of the lock file. This script never changes the lock file, because a change should
 * be reviewed and committed.
 *
 * When a wheel is built from a clone, the build runs this script in place of `npm` (see pyproject.toml). The command
 * `install` then installs as described above; other commands go to npm.
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
            "The lock file was not changed. If npm says that it does not match a package.json, run `npm install`, " +
            "review the changes in package-lock.json, and commit them.",
        );
      }
    },
  );
}

if (isScript(import.meta)) {
  main(() => {
    const [command, ...args] = process.argv.slice(2);
    if (command === "install") setUpNode();
    else npm(command, ...args);
  });
}

/**
 * `npm run build`: builds the two bundles that are part of the Python package.
 *
 * The wheel's build hook (see pyproject.toml) also runs this script. In that case, `jupyter-builder` comes from the
 * build environment.
 */

import { existsSync, mkdirSync, realpathSync, rmSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { fingerprint, inRoot, isScript, main, npm, outputs, step, stepIfChanged, venv } from "./lib.mjs";
import { record } from "./record-run.mjs";

const shared = ["package-lock.json", "LICENSE", "py_backend/docs", ".dev/build.mjs"];

const bundles = [
  {
    name: "Views (widgets)",
    stamp: "widgets",
    inputs: ["widgets", ...shared],
    results: [
      ...["panel.js", "THIRD-PARTY-LICENSES.txt", "LICENSE", "help.json"].map((name) => join(outputs.widgets, name)),
      ...["index.js", "licences.json"].map((name) => inRoot("widgets", "lib", name)),
    ],
    build: () => npm("run", "build", "--workspace", "widgets"),
  },
  {
    name: "JupyterLab extension",
    stamp: "labextension",
    inputs: [
      "extension/jupyterlab",
      "widgets",
      "py_backend/residscope/demo/example.ipynb",
      "py_backend/residscope/hosts/attach.py",
      ...shared,
    ],
    results: ["package.json", join("static", "third-party-licenses.json")].map((name) =>
      join(outputs.labextension, name),
    ),
    build: () => npm("run", "build", "--workspace", "extension/jupyterlab"),
  },
];

/** Builds what has changed since the last build, or everything. */
export function build({ everything = false } = {}) {
  for (const { name, stamp, inputs, results, build } of bundles) {
    if (everything) rmSync(inRoot(".setup", stamp), { force: true });
    stepIfChanged(name, stamp, () => fingerprint(inputs), results, build);
  }
}

const link = join(venv, "share", "jupyter", "labextensions", "@residscope", "jupyterlab");

/** Links the labextension into `.venv`, so that JupyterLab loads new builds without a new installation. */
export function linkLabextension() {
  step("Link to the JupyterLab extension", () => {
    if (existsSync(link) && realpathSync(link) === realpathSync(outputs.labextension)) return "unchanged";
    unlinkLabextension();
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(outputs.labextension, link, "junction"); // on Windows, a junction needs no special rights
  });
}

/** Removes the link before pip runs; otherwise pip would write through it, into the working tree. */
export function unlinkLabextension() {
  rmSync(link, { recursive: true, force: true }); // removes the link, not its target
}

if (isScript(import.meta)) {
  main(() => {
    build({ everything: true });
    record("build", { passed: bundles.length, skipped: 0, failed: 0 });
  });
}

/**
 * `npm run build`: the two bundles that live inside the Python package.
 *
 * Also what the wheel's build hook calls (see pyproject.toml); there `jupyter-builder` is the build environment's own.
 */

import { existsSync, mkdirSync, realpathSync, rmSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { fingerprint, inRoot, isScript, main, npm, outputs, step, stepIfChanged, venv } from "./lib.mjs";

const shared = ["package-lock.json", "LICENSE", ".dev/build.mjs"];

const bundles = [
  {
    name: "Views (widgets)",
    stamp: "widgets",
    inputs: ["widgets", ...shared],
    results: [
      ...["panel.js", "THIRD-PARTY-LICENSES.txt", "LICENSE"].map((name) => join(outputs.widgets, name)),
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

/** Build what has changed since the last time, or everything. */
export function build({ everything = false } = {}) {
  for (const { name, stamp, inputs, results, build } of bundles) {
    if (everything) rmSync(inRoot(".setup", stamp), { force: true });
    stepIfChanged(name, stamp, () => fingerprint(inputs), results, build);
  }
}

const link = join(venv, "share", "jupyter", "labextensions", "@residscope", "jupyterlab");

/** Let the JupyterLab of `.venv` load the labextension from the tree, so that a new build needs no new installation. */
export function linkLabextension() {
  step("Link to the JupyterLab extension", () => {
    if (existsSync(link) && realpathSync(link) === realpathSync(outputs.labextension)) return "unchanged";
    unlinkLabextension();
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(outputs.labextension, link, "junction"); // a junction needs no privilege on Windows
  });
}

/** For pip, which would otherwise remove and write the installed files through the link, in the tree. */
export function unlinkLabextension() {
  rmSync(link, { recursive: true, force: true }); // removes a link itself, not what it leads to
}

if (isScript(import.meta)) main(() => build({ everything: true }));

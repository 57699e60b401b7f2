/**
 * `npm run package`: builds a new sdist and wheel in `dist/`, and checks both.
 *
 * The wheel is built from the sdist, so the sdist must be complete. Then the wheel is installed in a new environment.
 * Only that environment's programs are on the path (on Windows, also those in System32), so Node and npm are not
 * available.
 */

import { mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  ask,
  binOf,
  environment,
  Failure,
  inRoot,
  main,
  outputs,
  python,
  pythonOf,
  run,
  step,
  summary,
  windows,
} from "./lib.mjs";
import { setUp } from "./setup.mjs";

const dist = inRoot("dist");
const extension = "@residscope/jupyterlab";
const extensionData = `.data/data/share/jupyter/labextensions/${extension}/`;
const heavy = ["torch", "transformer-lens"]; // they are gigabytes, and the checks do not need them

function onlyFile(suffix) {
  const found = readdirSync(dist).filter((name) => name.endsWith(suffix));
  if (found.length !== 1) throw new Failure(`dist/ should have one *${suffix} file, but has ${found.length}`);
  return join(dist, found[0]);
}

function buildBoth() {
  for (const path of [dist, ...Object.values(outputs)]) rmSync(path, { recursive: true, force: true });
  run(python, ["-m", "build", "--outdir", dist]);
}

/**
 * The wheel may have this many bytes. More than half is Python with its docstrings. The wheel has the views twice: for
 * notebooks, and for JupyterLab.
 */
const LARGEST = 1280 * 1024;

const kilobytes = (path) => `${(statSync(path).size / 1024).toFixed(0)} kB`;

/** Checks that an archive has each expected file once, and no file that matches `unwanted`. */
function check(archive, names, expected, unwanted) {
  for (const [what, matches] of Object.entries(expected)) {
    const count = names.filter(matches).length;
    if (count !== 1) throw new Failure(`${what} should be in the ${archive} once, but is there ${count} times`);
  }
  const found = names.filter((name) => unwanted.test(name));
  if (found.length > 0) throw new Failure(`the ${archive} should not contain ${found.slice(0, 5).join(", ")}`);
}

function checkContents() {
  const [wheel, sdist] = [onlyFile(".whl"), onlyFile(".tar.gz")];
  const inWheel = "import sys, zipfile; print('\\n'.join(zipfile.ZipFile(sys.argv[1]).namelist()))";
  const inSdist =
    "import sys, tarfile; print('\\n'.join(n.split('/', 1)[-1] for n in tarfile.open(sys.argv[1]).getnames()))";
  const names = (script, path) => ask(python, ["-c", script, path]).split(/\r?\n/);
  const called = (path) => (name) => name === path;

  check(
    "wheel",
    names(inWheel, wheel),
    {
      "The bundle of views": (name) => name.endsWith("panel.js"),
      "The licences of the packages in the bundle": called("residscope/static/THIRD-PARTY-LICENSES.txt"),
      "The licence of the views": called("residscope/static/LICENSE"),
      "The package's licence": (name) => name.endsWith(".dist-info/licenses/LICENSE"),
      "The stylesheet of the views": (name) => name.endsWith("panel.css"),
      "The texts of Help": called("residscope/static/help.json"),
      "The marker for type checkers": called("residscope/py.typed"),
      "The example notebook": called("residscope/demo/example.ipynb"),
      "The notebook for a model of one's own": called("residscope/demo/your-model.ipynb"),
      "The notebook that compares with the ARENA course": called("residscope/demo/arena.ipynb"),
      "The JupyterLab extension": (name) => name.endsWith(`${extensionData}package.json`),
      "The entry of the JupyterLab extension": (name) => name.includes(`${extensionData}static/remoteEntry.`),
      "The licences of the packages in the extension": (name) =>
        name.endsWith(`${extensionData}static/third-party-licenses.json`),
      "The extension's note on how to uninstall it": (name) => name.endsWith(`${extensionData}install.json`),
    },
    /node_modules|\.ts$|__pycache__|^residscope\/labextension\//,
  );
  check(
    "sdist",
    names(inSdist, sdist),
    {
      "The source of the views": called("widgets/src/entry/anywidget.ts"),
      "The source of the JupyterLab extension": called("extension/jupyterlab/src/index.ts"),
      "The lock file": called("package-lock.json"),
      "The bundle of views": called("py_backend/residscope/static/panel.js"),
      "The texts of Help": called("py_backend/residscope/static/help.json"),
      "The licence": called("LICENSE"),
      "The licences of the packages in the views": called("py_backend/residscope/static/THIRD-PARTY-LICENSES.txt"),
      "The built JupyterLab extension": called("py_backend/residscope/labextension/package.json"),
    },
    /node_modules|__pycache__|\.venv|^\.setup|tsbuildinfo|^residscope-demo|^test-results/,
  );
  if (statSync(wheel).size > LARGEST) throw new Failure(`the wheel is ${kilobytes(wheel)}; the limit is 1280 kB`);
  return `wheel ${kilobytes(wheel)}, sdist ${kilobytes(sdist)}`;
}

/**
 * Installs the wheel and its dependencies, except the heavy ones. Then imports the package, calls the demo with
 * `--help`, and looks for the extension in JupyterLab's list.
 */
function tryWheel() {
  const folder = mkdtempSync(join(tmpdir(), "residscope-wheel-"));
  try {
    run(python, ["-m", "venv", folder]);
    const clean = pythonOf(folder);
    const path = windows ? [binOf(folder), join(process.env.SystemRoot, "System32")].join(";") : binOf(folder);
    const options = { cwd: folder, env: environment({ VIRTUAL_ENV: folder, PATH: path }) };
    const pip = (...args) =>
      run(clean, ["-m", "pip", "install", "--quiet", "-c", inRoot(".dev", "constraints.txt"), ...args], options);

    const requirements =
      "import email, sys, zipfile; wheel = zipfile.ZipFile(sys.argv[1]); " +
      "[name] = [n for n in wheel.namelist() if n.endswith('.dist-info/METADATA')]; " +
      "needs = email.message_from_bytes(wheel.read(name)).get_all('Requires-Dist'); " +
      "print('\\n'.join(n for n in needs if 'extra ==' not in n))";
    const needs = ask(clean, ["-c", requirements, onlyFile(".whl")], options).split(/\r?\n/);
    pip(...needs.filter((need) => !heavy.includes(need.match(/^[\w.-]+/)[0])));
    pip("--no-deps", onlyFile(".whl"));

    const imported = "import residscope, sys; sys.exit(bool({'torch', 'transformer_lens'} & set(sys.modules)))";
    run(clean, ["-c", imported], options);
    run(clean, ["-m", "residscope.demo.cli", "--help"], options);

    // jupyter writes its list to standard error
    const list =
      "import subprocess, sys; list = [sys.executable, '-m', 'jupyter', 'labextension', 'list']; " +
      "print(subprocess.run(list, capture_output=True, text=True).stderr)";
    const listing = (ask(clean, ["-c", list], options) ?? "").replace(/\x1b\[[0-9;]*m/g, "");
    const line =
      listing
        .split("\n")
        .find((entry) => entry.includes(extension))
        ?.trim() ?? "nothing";
    console.log(line);
    if (!/enabled\s+OK/.test(line))
      throw new Failure(`"jupyter labextension list" should call ${extension} enabled and OK; it says: ${line}`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

main(() => {
  setUp({ model: false });
  step("Build", buildBoth);
  step("Contents", checkContents);
  step("Installation without Node", tryWheel);
  console.log("\nPackaged:");
  summary();
});

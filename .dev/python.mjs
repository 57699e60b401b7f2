/** Sets up the Python environment: finds an interpreter, creates `.venv` and installs the packages. */

import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { unlinkLabextension } from "./build.mjs";
import {
  ask,
  binOf,
  environment,
  Failure,
  fingerprint,
  outputs,
  python,
  run,
  step,
  stepIfChanged,
  venv,
  windows,
} from "./lib.mjs";

const oldest = [3, 10];
const printVersion = ["-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"];

function versionOf(command, args = []) {
  return ask(command, [...args, ...printVersion], { env: process.env });
}

function isRecent(version) {
  const [major, minor] = version.split(".").map(Number);
  return major > oldest[0] || (major === oldest[0] && minor >= oldest[1]);
}

/** Finds a Python that is new enough. Returns its command, the first arguments and the version. */
function findPython() {
  const candidates = process.env.PYTHON
    ? [[process.env.PYTHON]]
    : [
        ["python3"],
        ["python"],
        ...(windows ? [["py", "-3"]] : []),
        ...[14, 13, 12, 11, 10].map((n) => [`python3.${n}`]),
      ];
  const tooOld = [];
  for (const [command, ...args] of candidates) {
    const version = versionOf(command, args);
    if (version && isRecent(version)) return { command, args, version };
    if (version) tooOld.push(`${command} is ${version}`);
  }
  const found = process.env.PYTHON
    ? `PYTHON is set to "${process.env.PYTHON}", which is not such a Python`
    : tooOld.join(", ") || "none was found";
  throw new Failure(
    `Residscope needs Python ${oldest.join(".")} or newer (${found}). Install one from python.org or your system's ` +
      "package manager, or set the environment variable PYTHON to one.",
  );
}

function makeEnvironment() {
  const present = existsSync(python) && versionOf(python);
  if (present && isRecent(present) && ask(python, ["-m", "pip", "--version"])) return `Python ${present}`;
  const { command, args, version } = findPython();
  try {
    run(command, [...args, "-m", "venv", "--clear", venv], { env: process.env });
  } catch (error) {
    error.message += `. On Debian and Ubuntu the module venv is a separate package: apt-get install python3-venv`;
    throw error;
  }
  return `Python ${version}, new`;
}

export function setUpPython() {
  step("Python environment", makeEnvironment);
  stepIfChanged(
    "Python packages",
    "python",
    () => fingerprint(["pyproject.toml", ".dev/constraints.txt"], versionOf(python)),
    [join(binOf(venv), windows ? "residscope.exe" : "residscope")],
    () => {
      unlinkLabextension();
      // pip needs this folder, because pyproject.toml names it. build.mjs fills it later.
      mkdirSync(outputs.labextension, { recursive: true });
      run(python, ["-m", "pip", "install", "-c", ".dev/constraints.txt", "-e", ".[figures,dev]"], {
        env: environment({ SKIP_JUPYTER_BUILDER: "1", PIP_DISABLE_PIP_VERSION_CHECK: "1" }),
      });
    },
  );
}

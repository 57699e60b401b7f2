/** The Python environment: find an interpreter, make `.venv`, install the packages. */

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
const tellVersion = ["-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"];

function versionOf(command, args = []) {
  return ask(command, [...args, ...tellVersion], { env: process.env });
}

function isRecent(version) {
  const [major, minor] = version.split(".").map(Number);
  return major > oldest[0] || (major === oldest[0] && minor >= oldest[1]);
}

/** A Python that is new enough, as a command and its first arguments. */
function findPython() {
  const candidates = process.env.PYTHON
    ? [[process.env.PYTHON]]
    : [
        ["python3"],
        ["python"],
        ...(windows ? [["py", "-3"]] : []),
        ...[14, 13, 12, 11, 10].map((n) => [`python3.${n}`]),
      ];
  const seen = [];
  for (const [command, ...args] of candidates) {
    const version = versionOf(command, args);
    if (version && isRecent(version)) return { command, args, version };
    if (version) seen.push(`${command} is ${version}`);
  }
  const found = process.env.PYTHON
    ? `PYTHON is set to "${process.env.PYTHON}", which is none`
    : seen.join(", ") || "none was found";
  throw new Failure(
    `Residscope needs Python ${oldest.join(".")} or newer (${found}). Install one from python.org or your system's ` +
      "package manager, or name one in the environment variable PYTHON.",
  );
}

function makeEnvironment() {
  const present = existsSync(python) && versionOf(python);
  if (present && isRecent(present) && ask(python, ["-m", "pip", "--version"])) return `Python ${present}`;
  const { command, args, version } = findPython();
  try {
    run(command, [...args, "-m", "venv", "--clear", venv], { env: process.env });
  } catch (error) {
    error.message += `. On Debian and Ubuntu the module is a package of its own: apt-get install python3-venv`;
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
      mkdirSync(outputs.labextension, { recursive: true }); // named in pyproject.toml; it is built later, by build.mjs
      run(python, ["-m", "pip", "install", "-c", ".dev/constraints.txt", "-e", ".[figures,dev]"], {
        env: environment({ SKIP_JUPYTER_BUILDER: "1", PIP_DISABLE_PIP_VERSION_CHECK: "1" }),
      });
    },
  );
}

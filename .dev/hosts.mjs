/**
 * `npm run test:hosts`: tests the sidebar in other releases of JupyterLab. Each release has an environment under
 * `.venv-hosts/`, which contains only that release, anywidget and the built extension. The kernels use `.venv`.
 *
 * `npm run test:hosts -- 4.4` tests in the hosts whose names contain "4.4"; arguments after another `--` go to pytest.
 */

import { mkdirSync, rmSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { findChromium } from "./chromium.mjs";
import {
  ask,
  environment,
  Failure,
  fingerprint,
  inRoot,
  isScript,
  main,
  outputs,
  python,
  pythonOf,
  run,
  step,
  stepIfChanged,
  summary,
} from "./lib.mjs";
import { setUp } from "./setup.mjs";

const sidebar = ["", "_fate", "_places"].map((part) => `tests/browser/test_sidebar${part}.py`);
const hosts = [
  { name: "jupyterlab-4.4", packages: ["jupyterlab==4.4.10", "anywidget==0.11.0"], tests: sidebar },
  { name: "jupyterlab-4.5", packages: ["jupyterlab==4.5.11", "anywidget==0.11.0"], tests: sidebar },
];

function link(folder) {
  const place = join(folder, "share", "jupyter", "labextensions", "@residscope", "jupyterlab");
  rmSync(place, { recursive: true, force: true });
  mkdirSync(dirname(place), { recursive: true });
  symlinkSync(outputs.labextension, place, "junction");
}

function test({ name, packages, tests }, chromium, pytest) {
  const folder = inRoot(".venv-hosts", name);
  const hostPython = pythonOf(folder);
  const env = environment({ VIRTUAL_ENV: folder, PIP_DISABLE_PIP_VERSION_CHECK: "1" });
  stepIfChanged(
    `${name}, installed`,
    `hosts-${name}`,
    () => fingerprint([], packages, ask(python, ["-VV"])),
    [hostPython],
    () => {
      run(python, ["-m", "venv", "--clear", folder]);
      run(hostPython, ["-m", "pip", "install", "--quiet", "--no-compile", ...packages], { env });
    },
  );
  step(`${name}, tested`, () => {
    link(folder);
    const variables = {
      RESIDSCOPE_HOST_PYTHON: hostPython,
      RESIDSCOPE_HOST_JUPYTERLAB: packages[0].split("==")[1], // for the record of the run
      RESIDSCOPE_CHROMIUM: chromium,
    };
    run(python, ["-m", "pytest", "-W", "default", ...tests, ...pytest], { env: environment(variables) });
  });
}

export function testHosts(words) {
  const end = words.includes("--") ? words.indexOf("--") : words.length;
  const [wanted, pytest] = [words.slice(0, end), words.slice(end + 1)];
  const unknown = wanted.find((word) => !hosts.some(({ name }) => name.includes(word)));
  if (unknown !== undefined)
    throw new Failure(`There is no host "${unknown}"; the hosts are: ${hosts.map(({ name }) => name).join(", ")}.`);
  const chromium = findChromium();
  for (const host of hosts)
    if (wanted.length === 0 || wanted.some((word) => host.name.includes(word))) test(host, chromium, pytest);
}

if (isScript(import.meta)) {
  main(() => {
    setUp({ model: true });
    testHosts(process.argv.slice(2));
    console.log("\nAll passed:");
    summary();
  });
}

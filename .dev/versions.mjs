/**
 * `npm run test:versions`: runs tests/versions with older releases of TransformerLens. Each release has an environment
 * under `.venv-versions/`. It contains that release and the packages that Residscope's mathematics needs, but no
 * Jupyter.
 *
 * It also runs tests/adapters with peft and bitsandbytes, which are installed in a separate folder.
 *
 * `npm run test:versions -- 2.18 adapters` runs only the tests of releases 2.18… and those of adapters. Arguments after
 * another `--` go to pytest. To add a release, add an entry below and a file of pins, .dev/versions/RELEASE.txt:
 * install the release without pins, and write the output of `pip freeze` into the file.
 */

import { rmSync } from "node:fs";
import { linkLabextension } from "./build.mjs";

import {
  ask,
  environment,
  Failure,
  fingerprint,
  inRoot,
  main,
  python,
  pythonOf,
  run,
  step,
  stepIfChanged,
  summary,
  windows,
} from "./lib.mjs";
import { setUpPython } from "./python.mjs";

/** Some of the tests of effects, for bridges of an older release. All tests of effects would take minutes. */
const causes = [
  "test_a_replay_is_the_cached_run_and_effects_are_those_of_hooked_runs[gpt2]",
  "test_a_replay_is_the_cached_run_and_effects_are_those_of_hooked_runs[llama]",
  "test_padding_is_not_changed_and_each_prompt_has_its_own_effects",
  "test_patching_agrees_with_transformer_lens",
  "test_runs_that_end_in_any_way_change_no_state",
].map((name) => `tests/python/test_causes.py::${name}`);
const releases = [
  { release: "2.18.0", newestPython: 12 }, // it needs numpy 1, which has no wheels for newer versions of Python
  {
    release: "3.9.0",
    newestPython: 14,
    also: ["tests/python/test_applied.py", ...causes],
    packages: ["sae-lens==6.54.12"], // it needs TransformerLens < 4
  },
];
const adapters = "adapters";
const requirements = ["torch", "einops", "jaxtyping", "msgspec", "pytest"];
const oldestPython = 10;

const minorOf = (command) => {
  const [major, minor] =
    ask(command[0], [...command.slice(1), "-c", "import sys; print(*sys.version_info[:2])"])
      ?.split(" ")
      .map(Number) ?? [];
  return major === 3 ? minor : undefined;
};

/** A Python on which this release runs: that of `.venv`, or another installed one; undefined if there is none. */
function findPython({ newestPython }) {
  const minors = Array.from({ length: newestPython - oldestPython + 1 }, (_, i) => newestPython - i);
  const older = minors.map((minor) => (windows ? ["py", `-3.${minor}`] : [`python3.${minor}`]));
  return [[python], ...older].find((command) => {
    const minor = minorOf(command);
    return minor >= oldestPython && minor <= newestPython;
  });
}

const missing = ({ release, newestPython }) =>
  `TransformerLens ${release} needs a Python from 3.${oldestPython} to 3.${newestPython}, but \`.venv\` has ` +
  `3.${minorOf([python])}, and no such Python was found: install python3.${newestPython}, too, to run its tests.`;

function test({ release, also = [], packages = [] }, [command, ...args], pytest) {
  const folder = inRoot(".venv-versions", release);
  const pins = `.dev/versions/${release}.txt`;
  const itsPython = pythonOf(folder);
  const env = environment({ VIRTUAL_ENV: folder, PIP_DISABLE_PIP_VERSION_CHECK: "1" });
  stepIfChanged(
    `TransformerLens ${release}, installed`,
    `versions-${release}`,
    () => fingerprint([pins], [...requirements, ...packages], ask(command, [...args, "-VV"])),
    [itsPython],
    () => {
      run(command, [...args, "-m", "venv", "--clear", folder]);
      // Not compiled, because Python compiles a module when it is imported. Compiling all of them would take twice the
      // time and more disk space.
      run(
        itsPython,
        [
          ...["-m", "pip", "install", "--no-compile", "-c", pins, `transformer-lens==${release}`],
          ...[...requirements, ...packages],
        ],
        {
          env,
        },
      );
    },
  );
  step(`TransformerLens ${release}, tested`, () => {
    const source = { PYTHONPATH: inRoot("py_backend"), PYTHONNOUSERSITE: "1", RESIDSCOPE_TRANSFORMER_LENS: release };
    // No network, and one thread: with tiny tensors, more threads are slower.
    const quiet = { HF_HUB_OFFLINE: "1", OMP_NUM_THREADS: "1" };
    run(itsPython, ["-m", "pytest", "-W", "default", "tests/versions", ...also, ...pytest], {
      env: { ...env, ...source, ...quiet },
    });
  });
}

/** Runs tests/adapters. These packages are too large for `.venv`, and Residscope itself does not import them. */
function testAdapters(pytest) {
  const folder = inRoot(".venv-versions", adapters);
  const pins = `.dev/versions/${adapters}.txt`;
  const quiet = environment({ PIP_DISABLE_PIP_VERSION_CHECK: "1" });
  stepIfChanged(
    "peft and bitsandbytes, installed",
    `versions-${adapters}`,
    () => fingerprint([pins], ask(python, ["-VV"])),
    [folder],
    () => {
      rmSync(folder, { recursive: true, force: true });
      run(python, ["-m", "pip", "install", "--no-compile", "--no-deps", "--target", folder, "-r", pins], {
        env: quiet,
      });
    },
  );
  step("peft and bitsandbytes, tested", () => {
    const env = environment({ PYTHONPATH: folder, HF_HUB_OFFLINE: "1", OMP_NUM_THREADS: "1" });
    run(python, ["-m", "pytest", "-W", "default", "tests/adapters", ...pytest], { env });
  });
}

main(() => {
  const words = process.argv.slice(2);
  const end = words.includes("--") ? words.indexOf("--") : words.length;
  const [wanted, pytest] = [words.slice(0, end), words.slice(end + 1)];
  const all = [...releases.map(({ release }) => release), adapters];
  const unknown = wanted.find((word) => !all.some((name) => name.startsWith(word)));
  if (unknown !== undefined) throw new Failure(`There is no release "${unknown}"; choose from: ${all.join(", ")}.`);
  const isWanted = (name) => wanted.length === 0 || wanted.some((word) => name.startsWith(word));
  setUpPython();
  linkLabextension(); // a new installation of the packages replaces the link by a copy
  const leftOut = [];
  for (const entry of releases) {
    if (!isWanted(entry.release)) continue;
    const command = findPython(entry);
    if (command) test(entry, command, pytest);
    else leftOut.push(missing(entry));
  }
  if (isWanted(adapters)) testAdapters(pytest);
  if (leftOut.length > 0 && wanted.length > 0) throw new Failure(leftOut.join("\n"));
  console.log(`\nAll passed${leftOut.length > 0 ? `, but this was left out: ${leftOut.join(" ")}` : ":"}`);
  summary();
});

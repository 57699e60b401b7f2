/**
 * `npm run mutants`: mutation testing. Mistakes are put into the code, one at a time. For each mistake, a test should
 * fail. A random sample of the mistakes is tried, which takes half an hour.
 *
 * `npm run mutants -- python` or `npm run mutants -- typescript` runs only one language. Further arguments go to
 * tests/mutants/run.py or .dev/mutants-typescript.mjs: `--all` tries all mistakes, which takes many hours.
 */

import { rmSync } from "node:fs";

import { ask, environment, Failure, fingerprint, inRoot, main, python, run, step, stepIfChanged } from "./lib.mjs";
import { setUp } from "./setup.mjs";

const pins = ".dev/versions/mutants.txt";
const folder = inRoot(".mutants", "python");

const languages = {
  python(words) {
    stepIfChanged(
      "Cosmic Ray, installed",
      "mutants",
      () => fingerprint([pins], ask(python, ["-VV"])),
      [folder],
      () => {
        rmSync(folder, { recursive: true, force: true });
        run(python, ["-m", "pip", "install", "--quiet", "--no-compile", "--no-deps", "--target", folder, "-r", pins]);
      },
    );
    const env = environment({ PYTHONPATH: folder, HF_HUB_OFFLINE: "1" });
    step("Mutants of the Python part", () => run(python, ["-m", "tests.mutants.run", ...words], { env }));
  },
  typescript(words) {
    step("Mutants of the views", () => run(process.execPath, [inRoot(".dev", "mutants-typescript.mjs"), ...words]));
  },
};

main(() => {
  const [first, ...rest] = process.argv.slice(2);
  const isOneLanguage = first !== undefined && first in languages;
  // Without a language, only options and numbers (`--each 20`) are accepted. The name of a module or file, or the
  // revision after `--tests`, belongs to one language.
  if (!isOneLanguage && process.argv.slice(2).some((word) => !word.startsWith("--") && !/^\d+$/.test(word))) {
    throw new Failure(`Name a language first: ${Object.keys(languages).join(", ")}.`);
  }
  setUp({ model: true });
  const words = isOneLanguage ? rest : process.argv.slice(2);
  for (const language of isOneLanguage ? [first] : Object.keys(languages)) languages[language](words);
});

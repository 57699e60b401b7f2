// Mutation testing of the code that decides numbers, words and files: Stryker puts a mistake into the code, and a test
// must fail. .dev/mutants-typescript.mjs runs it in the folder of the repository, because tests read tests/texts/,
// which is outside widgets/.

/** The mutated files; the paths begin at the repository. */
export const FILES = [
  "widgets/src/draw/colours.ts",
  "widgets/src/base/format.ts",
  "widgets/src/wire/client.ts",
  "widgets/src/state/store.ts",
  "widgets/src/**/*-words.ts",
  "widgets/src/export/*.ts",
  "widgets/src/views/*/*-export.ts",
];
export const REPORT = "test-results/mutants/typescript.json";

/** @type {import("@stryker-mutator/api/core").PartialStrykerOptions} */
export default {
  mutate: FILES,
  ignorePatterns: [
    "/*",
    "!/widgets",
    "/widgets/lib",
    "/widgets/pictures",
    "!/tests",
    "/tests/*",
    "!/tests/texts",
    "!/py_backend",
    "/py_backend/*",
    "!/py_backend/docs",
  ],
  testRunner: "vitest",
  plugins: ["@stryker-mutator/vitest-runner", "./widgets/stryker.sample.mjs"],
  vitest: { configFile: "widgets/vitest.mutants.config.ts", dir: "widgets", related: false },
  checkers: ["sample"],
  coverageAnalysis: "perTest",
  disableTypeChecks: true,
  concurrency: 2,
  timeoutMS: 20_000,
  dryRunTimeoutMinutes: 10,
  tempDirName: ".stryker",
  reporters: ["json", "progress-append-only"],
  jsonReporter: { fileName: REPORT },
};

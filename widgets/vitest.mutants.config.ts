// The same tests in another order: first those without a panel, which are the fastest. The run of a mutant ends with
// the first test that fails.
import { readFileSync } from "node:fs";
import { defineConfig, mergeConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";
import tests from "./vitest.config";

/**
 * The tests of colours run first. The table of colours is made once, so Stryker counts it as covered only by the first
 * test that uses it. This must be a test that checks the colours.
 */
const FIRST = /\/colours\.test\.ts$/;
const cost = ({ moduleId }: TestSpecification): number => {
  const text = readFileSync(moduleId, "utf8");
  return FIRST.test(moduleId) ? 0 : text.length + (text.includes('from "./open"') ? 1e6 : 0);
};

class QuickestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    return [...files].sort((a, b) => cost(a) - cost(b));
  }
}

export default mergeConfig(tests, defineConfig({ test: { sequence: { sequencer: QuickestFirst } } }));

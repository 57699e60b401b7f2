// The tests as they are, those without a panel first: they take a moment, and the first that fails ends a mutant's run.
import { readFileSync } from "node:fs";
import { defineConfig, mergeConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";
import tests from "./vitest.config";

/**
 * What is made once and kept, a table of colours, is covered by the test that comes first: it must be the one that
 * looks.
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

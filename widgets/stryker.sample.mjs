// Stryker tries every mutant of a file. This plugin, a checker, skips the mutants that are not in the sample. The
// environment variable RESIDSCOPE_MUTANTS names a file with the keys of the sample; without it, all mutants are tried.
import { readFileSync } from "node:fs";
import { relative } from "node:path";
import { declareClassPlugin, PluginKind } from "@stryker-mutator/api/plugin";

/** The place of a mutant (lines and columns are counted from 0), and its replacement. */
export function keyOf({ fileName, location: { start, end }, mutatorName, replacement }) {
  const file = relative(process.cwd(), fileName).replaceAll("\\", "/");
  return [file, `${start.line}:${start.column}-${end.line}:${end.column}`, mutatorName, replacement].join(" ");
}

class Sample {
  async init() {
    const list = process.env.RESIDSCOPE_MUTANTS;
    this.chosen = list ? new Set(JSON.parse(readFileSync(list, "utf8"))) : null;
  }

  async group(mutants) {
    return mutants.length > 0 ? [mutants.map(({ id }) => id)] : [];
  }

  async check(mutants) {
    const answer = (mutant) =>
      !this.chosen || this.chosen.has(keyOf(mutant))
        ? { status: "passed" }
        : { status: "compileError", reason: "not in the sample" };
    return Object.fromEntries(mutants.map((mutant) => [mutant.id, answer(mutant)]));
  }
}

export const strykerPlugins = [declareClassPlugin(PluginKind.Checker, "sample", Sample)];

// Compares two runs, row by row. A reply to `compare` becomes three decompositions: of the first run, of the second
// run, and of their difference. All have the same form, so map, ranking, ledger and badge draw them in the same way.
import { float32, type Result } from "../wire/client";
import type { Against, CacheRow, RunSum, Shown } from "../wire/protocol.gen";
import type { Attribution } from "./attribution";

export type Run = NonNullable<Shown["run"]>;

export interface Comparison {
  by: Attribution["reply"]["by"];
  /** The run that is shown without a comparison. */
  first: Attribution;
  /** The run that it is compared with. */
  second: Attribution;
  /** Second minus first. */
  difference: Attribution;
  /** For each row, the part of the difference that arises because the component writes something else. */
  written: Float32Array;
  /** The rest of the difference, summed over all rows. It arises because each run reads the same output differently. */
  read: number;
}

export function comparisonOf({ reply, buffers }: Result<"compare">): Comparison {
  const { by, components, prompts, notes, refusal = null, missing = [] } = reply;
  const [first, second, written, read] = [0, 1, 2, 3].map((at) => float32(buffers[at])) as [
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  const run = (sum: RunSum, rows: Float32Array): Attribution => ({
    reply: { kind: "attribute", by, components, ...sum, prompts, notes, refusal, missing },
    rows,
    std: null,
    perPrompt: null,
    constants: null,
  });
  return {
    by,
    first: run(reply.first, first),
    second: run(reply.second, second),
    difference: run(
      reply.difference,
      written.map((value, row) => value + (read[row] ?? NaN)),
    ),
    written,
    read: reply.read,
  };
}

/** A quantity in the plural: "logit differences", "values". */
export function several(quantity: string): string {
  return /(logit|logit difference|attention score)$/.test(quantity) ? `${quantity}s` : "values";
}

/** The names of two runs: "prompt 2" and "prompt 1", two caches, or "as cached" and "without L9H9 (zeroed)". */
export function runNames(
  cache: string,
  prompt: number | null,
  { cache: other = null, prompt: otherPrompt = null, without = [], replaced_by = "zero" }: Against,
): [string, string] {
  if (without.length > 0)
    return [
      "as cached",
      `without ${without.join(", ")} ${replaced_by === "mean" ? "(mean over prompts)" : "(zeroed)"}`,
    ];
  const named = (prompt: number | null): string => (prompt === null ? "the mean" : `prompt ${prompt}`);
  if (other === null) return [named(prompt), named(otherPrompt)];
  const apart = otherPrompt !== null && otherPrompt !== prompt;
  return apart ? [`${cache}, ${named(prompt)}`, `${other}, ${named(otherPrompt)}`] : [cache, other];
}

/** The same comparison, with positions paired in another way. */
export function aligned(against: Against, align: Against["align"]): Against {
  const { align: _, ...rest } = against;
  return align ? { ...rest, align } : rest;
}

/** A key of the compared run. Fields that have their default value do not change the key. */
export function againstKey({ cache = null, prompt = null, without = [], replaced_by = "zero" }: Against): string {
  return JSON.stringify([cache, prompt, without, without.length > 0 ? replaced_by : null]);
}

/** A run that the shown run can be compared with. */
export interface Choice {
  against: Against;
  name: string;
  /** What the run is, or why a comparison with it is not possible. */
  words: string;
  /** Whether a comparison with it is not possible: it has another shape, or its cache cannot be read. */
  refused: boolean;
}

/** The other prompts of the cache, then the other caches of the kernel. */
export function choicesOf(
  facts: { name: string; layers: number; heads: number; prompts: number },
  shown: { cache: string; prompt: number | null },
  caches: readonly CacheRow[],
): Choice[] {
  const prompts = Array.from({ length: facts.prompts > 1 ? facts.prompts : 0 }, (_, prompt) => prompt)
    .filter((prompt) => prompt !== shown.prompt)
    .map((prompt) => ({
      against: { cache: null, prompt },
      name: `prompt ${prompt}`,
      words: "of this cache",
      refused: false,
    }));
  const own = new Set([shown.cache, facts.name]);
  const others = caches
    .filter(({ names }) => !names.some((name) => own.has(name)))
    .map(({ names, model, layers, heads, prompts, positions, problem = null }): Choice => {
      const fits = layers === facts.layers && heads === facts.heads;
      const shape = `${layers} × ${heads} heads, ${prompts} × ${positions}`;
      return {
        against: { cache: names[0] ?? "", prompt: null },
        name: names[0] ?? "",
        words: problem ?? (fits ? `${model} · ${prompts} × ${positions}` : `another shape: ${shape}`),
        refused: problem !== null || !fits,
      };
    });
  return [...prompts, ...others];
}

// The badge in words: what the rows add up to, where the model's own value was read, and what the verdict means.
import { amount, signed } from "../../base/format";
import { shown } from "../../base/legible";
import { type Comparison, type Run, several } from "../../state/comparison";
import type { Attribution } from "../../state/store";
import type { Target } from "../../wire/protocol.gen";
import { rowSum, type Verdict, verdict } from "./ledger";

const KINDS: Record<string, string> = {
  hook_attn_out: "attention",
  hook_mlp_out: "MLPs",
  "attn.hook_z": "heads",
  hook_embed: "embeddings",
};

/** Names the kinds of rows that are missing: "MLPs and embeddings missing". */
export function missingWords(kinds: string[]): string {
  const named = kinds.map((kind) => shown(kind));
  return `${[named.slice(0, -1).join(", "), named.at(-1) ?? ""].filter((part) => part !== "").join(" and ")} missing`;
}

/** The same words for activations that are missing from a cache; null if no rows need these activations. */
export function lackingIn(missing: string[]): string | null {
  const kinds = missing.flatMap((name) => KINDS[name] ?? []);
  return kinds.length > 0 ? missingWords(kinds) : null;
}

/** The parts of a target's constant: what is added after the rows, on the way to the target. */
export function constantWords({ inner, through = [] }: Target): string {
  if (through.length > 0) return "biases on the way to the target";
  switch (inner?.kind) {
    case "attention":
      return "biases of the norm, and of queries and keys";
    case "neuron":
      return "biases of the norm and of the neuron";
    case "direction":
      return inner.feature ? "biases of the SAE" : "biases on the way to the target";
    case undefined:
      return "biases of the final norm and the unembedding; the soft-cap, if there is one";
  }
}

/**
 * The verdict in a few words, for narrow panels. `unexplained` is null if the gap of the mean is within the tolerance.
 */
export function brief(
  kind: Verdict["kind"],
  sum: number,
  unexplained: number | null,
  own: boolean,
  past: boolean,
  largest: number,
): string {
  if (kind === "incomplete") return "not complete";
  if (kind === "contradicts") return "does not add up";
  if (past) return `was ${signed(sum, largest)}`;
  if (kind === "misses") return unexplained === null ? "misses in a prompt" : `misses ${signed(unexplained, largest)}`;
  return kind === "agrees" && own ? `✓ adds up: ${signed(sum, largest)}` : `${signed(sum, largest)}, not checked`;
}

/** Whose value the rows add up to: "the model’s own logit difference", "the difference of the two runs’ own …". */
export interface Whose {
  /** "the model’s", "the difference of the two runs’" */
  whose: string;
  /** "logit difference", "logit differences" */
  quantity: string;
}

export function whoseOf(run: Run | null, quantity: string): Whose {
  if (run === "difference") return { whose: "the difference of the two runs’", quantity: several(quantity) };
  return { whose: run === "second" ? "run B’s" : "the model’s", quantity };
}

export function explanation(data: Attribution, { whose, quantity }: Whose, dtype: string): string {
  const { measured_from, notes, own, prompts, tolerance, worst } = data.reply;
  const { kind, measured } = verdict(data);
  const largest = Math.max(Math.abs(rowSum(data)), Math.abs(measured ?? 0));
  if (kind === "incomplete") {
    const known =
      measured === null
        ? `${begun(whose)} ${quantity} is not known: ${measured_from.replace(/^nothing: /, "")}.`
        : `${begun(whose)} ${quantity}, read from ${measured_from}, is ${signed(measured, largest, 1)}.`;
    return (
      `The rows are not complete: ${missingWords(data.reply.missing ?? [])}. Each row is exact, but their sum ` +
      `is not the ${quantity}. ${known}`
    );
  }
  const many = prompts > 1;
  const sum = `The rows and the constant${many ? `, in the mean over ${prompts} prompts,` : ""} add up to`;
  if (measured === null) {
    const why = measured_from.replace(/^nothing: /, "") || "pass `logits=`";
    return (
      `${sum} ${signed(rowSum(data), largest, 1)}. Whether that is ${whose} own ${quantity} is not known: ` + `${why}.`
    );
  }
  const rounding = `rounding (${dtype}: up to ${amount(tolerance)})`;
  const left = amount(worst ?? 0);
  if (kind === "agrees") {
    const judged = many ? `The largest gap in a prompt, ${left}, is` : `The gap, ${left}, is`;
    const what = own ? `${whose} own ${quantity}` : `the ${quantity} that the cache gives`;
    return `${sum} ${what}, ${signed(measured, largest, 1)}, read from ${measured_from}. ${judged} ${rounding}.`;
  }
  if (kind === "contradicts")
    return (
      `${sum} ${signed(rowSum(data), largest, 1)}, but the same reply says ${signed(measured, largest, 1)}: ` +
      "it contradicts itself."
    );
  const judged = many ? "In the worst prompt they leave" : "They leave";
  const why = notes.length > 0 ? "unexplained; why:" : `unexplained, more than ${rounding}.`;
  return (
    `${sum} ${signed(rowSum(data), largest, 1)}; ${whose} own ${quantity}, read from ${measured_from}, is ` +
    `${signed(measured, largest, 1)}. ${judged} ${left} ${why}`
  );
}

/** The model's own values in both runs: " (+4.616 → +2.430)"; "" if one of them is not known. */
export function fromToWords(runs: Comparison | null): string {
  const values = runs ? [runs.first, runs.second].map((run) => verdict(run).measured) : [null];
  const [from = null, to = null] = values;
  if (from === null || to === null) return "";
  const largest = Math.max(Math.abs(from), Math.abs(to));
  return ` (${signed(from, largest, 1)} → ${signed(to, largest, 1)})`;
}

const begun = (words: string): string => words.charAt(0).toUpperCase() + words.slice(1);

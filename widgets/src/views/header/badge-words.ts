// The badge in words: what is added up, where the model's own figure was read, and what the verdict means.
import { amount, signed } from "../../base/format";
import type { Attribution } from "../../state/store";
import { rowSum, type Verdict, verdict } from "./ledger";

const KINDS: Record<string, string> = {
  hook_attn_out: "attention",
  hook_mlp_out: "MLPs",
  "attn.hook_z": "heads",
  hook_embed: "embeddings",
};

/** "MLPs and embeddings missing", of the kinds that a decomposition lacks. */
export function missingWords(kinds: string[]): string {
  return `${[kinds.slice(0, -1).join(", "), kinds.at(-1) ?? ""].filter((part) => part !== "").join(" and ")} missing`;
}

/** The same of a cache whose rows were all refused; null where nothing that rows need is missing. */
export function lackingIn(missing: string[]): string | null {
  const kinds = missing.flatMap((name) => KINDS[name] ?? []);
  return kinds.length > 0 ? missingWords(kinds) : null;
}

/**
 * The verdict where there is no room for its sentence; `unexplained` is null where that is too little to be said of the
 * mean.
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
  if (kind === "misses") return unexplained === null ? "a prompt is missed" : `misses ${signed(unexplained, largest)}`;
  return kind === "agrees" && own ? `✓ adds up: ${signed(sum, largest)}` : `${signed(sum, largest)}, not checked`;
}

export function explanation(data: Attribution, quantity: string, dtype: string): string {
  const { measured_from, notes, own, prompts, tolerance, worst } = data.reply;
  const { kind, measured } = verdict(data);
  const largest = Math.max(Math.abs(rowSum(data)), Math.abs(measured ?? 0));
  if (kind === "incomplete") {
    const known =
      measured === null
        ? `What the model’s ${quantity} is, is not known: ${measured_from.replace(/^nothing: /, "")}.`
        : `The model’s ${quantity}, read from ${measured_from}, is ${signed(measured, largest, 1)}.`;
    return (
      `The rows are not complete: ${missingWords(data.reply.missing ?? [])}. Each row is exact by itself; no ` +
      `sum is claimed. ${known}`
    );
  }
  const many = prompts > 1;
  const sum = `The rows and the constant${many ? `, in the mean over ${prompts} prompts,` : ""} add up to`;
  if (measured === null) {
    const why = measured_from.replace(/^nothing: /, "") || "pass `logits=`";
    return (
      `${sum} ${signed(rowSum(data), largest, 1)}. Whether that is the model’s own ${quantity} is not known: ` +
      `${why}.`
    );
  }
  const rounding = `rounding (${dtype}: up to ${amount(tolerance)})`;
  const left = amount(worst ?? 0);
  if (kind === "agrees") {
    const judged = many
      ? `The worst prompt is judged: what is left over there, ${left}, is`
      : `What is left over, ${left}, is`;
    const what = own ? `the model’s own ${quantity}` : `the ${quantity} that the cache gives`;
    return `${sum} ${what}, ${signed(measured, largest, 1)}, read from ${measured_from}. ${judged} ${rounding}.`;
  }
  if (kind === "contradicts")
    return (
      `${sum} ${signed(rowSum(data), largest, 1)}, but ${signed(measured, largest, 1)} came with them: these ` +
      "figures do not belong together."
    );
  const judged = many ? "The worst prompt is judged: there they leave" : "They leave";
  const why = notes.length > 0 ? "unexplained; why:" : `unexplained, more than ${rounding}.`;
  return (
    `${sum} ${signed(rowSum(data), largest, 1)}; the model’s own ${quantity}, read from ${measured_from}, is ` +
    `${signed(measured, largest, 1)}. ${judged} ${left} ${why}`
  );
}

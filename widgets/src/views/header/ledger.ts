// The ledger: the rows that the badge sums, grouped into a few lines that add up to the measured value.
import { html, type TemplateResult } from "lit-html";
import { signed, vanishes } from "../../base/format";
import { limitOf } from "../../draw/colours";
import type { Attribution } from "../../state/store";
import { type ComponentKind, componentsOf } from "../../wire/components";

export interface Entry {
  name: string;
  value: number;
}

/** The line of the ledger that a row is added to. */
const GROUPS: Partial<Record<ComponentKind, string>> = {
  mlp_out: "MLPs",
  mlp_bias: "MLPs",
  attn_bias: "attention biases",
  attn_out: "other sublayers",
  mixer_out: "other sublayers",
  per_layer_out: "other sublayers",
  layer_out: "other sublayers",
  embed: "embeddings",
  pos_embed: "embeddings",
};

/**
 * The sums of the groups of rows: heads, attention biases, MLPs, embeddings, others and the constant. Groups whose sum
 * vanishes are left out, except the heads. Rows that are NaN were not cached.
 */
export function entries({ reply, rows }: Attribution, heads: number): Entry[] {
  const sums = new Map<string, number>(
    rows.subarray(0, heads).some((value) => !Number.isNaN(value)) ? [["heads", 0]] : [],
  );
  const components = componentsOf(reply.components);
  rows.forEach((value, i) => {
    const row = components[i];
    const name = i < heads ? "heads" : row ? (GROUPS[row.kind] ?? row.label) : "";
    if (!Number.isNaN(value)) sums.set(name, (sums.get(name) ?? 0) + value);
  });
  sums.set("constant", reply.constant);
  const lines = [...sums].map(([name, value]) => ({ name, value }));
  const largest = limitOf(lines.map((e) => e.value));
  return lines.filter((e) => e.name === "heads" || !vanishes(e.value, largest));
}

export function rowSum({ reply, rows }: Attribution): number {
  return rows.reduce((sum, value) => (Number.isNaN(value) ? sum : sum + value), 0) + reply.constant;
}

export type Verdict =
  /** `contradicts`: the sum of the rows differs from the sum in the same reply, so the data is inconsistent. */
  | { kind: "agrees" | "misses" | "contradicts"; measured: number; unexplained: number }
  /** Some rows were not cached, so the sum is not comparable to the model's own value. */
  | { kind: "incomplete"; measured: number | null; unexplained: number | null }
  | { kind: "unmeasured"; measured: null; unexplained: null };

// The largest rounding errors, relative to the sum of absolute values.
const SUMMED = 1e-4; // of a sum in float32
const LOOSEST = 0.02; // of a model in the lowest precision

/**
 * Whether the rows can be compared with the model's own value, and whether they agree. The sum is computed here, from
 * the rows in the reply.
 */
export function verdict(data: Attribution): Verdict {
  const { measured, unexplained, worst, tolerance, constant } = data.reply;
  if ((data.reply.missing ?? []).length > 0) return { kind: "incomplete", measured, unexplained };
  if (measured === null || unexplained === null || worst === null)
    return { kind: "unmeasured", measured: null, unexplained: null };
  const size = data.rows.reduce(
    (sum, value) => (Number.isNaN(value) ? sum : sum + Math.abs(value)),
    Math.abs(constant) + Math.abs(measured),
  );
  const left = measured - rowSum(data);
  if (!(Math.abs(left - unexplained) <= SUMMED * size + 1e-6))
    return { kind: "contradicts", measured, unexplained: left };
  // In a mean over prompts, gaps of opposite signs cancel, so the prompt with the largest gap decides.
  return { kind: Math.abs(worst) <= Math.min(tolerance, LOOSEST * size) ? "agrees" : "misses", measured, unexplained };
}

export function ledger(data: Attribution, heads: number, quantity: string): TemplateResult {
  const lines = entries(data, heads);
  const { kind, measured, unexplained } = verdict(data);
  if (kind === "misses" || kind === "contradicts") lines.push({ name: "unexplained", value: unexplained });
  if (kind === "incomplete") {
    if (unexplained !== null) lines.push({ name: "not cached", value: unexplained });
    return sumTable("Rows that were cached", lines, {
      name: measured === null ? "these rows alone" : quantity,
      value: measured ?? rowSum(data),
    });
  }
  return sumTable("Sum of all rows", lines, { name: quantity, value: measured ?? rowSum(data) });
}

/** A table of lines with bars. Below a rule is the total. */
export function sumTable(title: string, lines: Entry[], total: Entry): TemplateResult {
  const limit = limitOf(lines.map((e) => e.value));
  const largest = Math.max(limit, limitOf([total.value]));
  return html`<h4>${title}</h4>
    <table>
      <tbody>
        ${lines.map(
          ({ name, value }) => html`<tr>
          <th scope="row">${name}</th>
          <td class="rs-track"><i class=${value < 0 ? "rs-minus" : "rs-plus"}
              style="width:${limit > 0 ? (Math.abs(value) / limit) * 100 : 0}%"></i></td>
          <td class="rs-number">${signed(value, largest)}</td>
        </tr>`,
        )}
      </tbody>
      <tfoot><tr><th scope="row" colspan="2">${total.name}</th><td
          class="rs-number">${signed(total.value, largest)}</td></tr></tfoot>
    </table>`;
}

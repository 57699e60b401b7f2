// How a value varies over the prompts: its mean, its standard deviation, and the value of each prompt.
import { parseHead, plain, plural } from "../../base/format";
import type { Attribution, Store } from "../../state/store";

export interface Spread {
  mean: number;
  std: number;
  /** The number of prompts in the mean. */
  prompts: number;
  /**
   * The value of each prompt of the cache: NaN if the position is padding there. Null if there are too many prompts to
   * send all values.
   */
  each: Float32Array | null;
}

/** The spread of one row; null if a single prompt is selected, or if the row is missing. */
export function spreadOf(data: Attribution | null, row: number): Spread | null {
  const std = data?.std?.[row];
  const mean = data?.rows[row];
  if (!data || std === undefined || mean === undefined || Number.isNaN(mean)) return null;
  const each = data.constants?.length ?? 0;
  return {
    mean,
    std,
    prompts: data.reply.prompts,
    each: data.perPrompt?.subarray(row * each, (row + 1) * each) ?? null,
  };
}

/** The spread of one head. */
export function headSpread(store: Store, name: string): Spread | null {
  const head = parseHead(name);
  const heads = store.facts.value?.heads ?? 0;
  return head && head.head < heads ? spreadOf(store.headRows.value, head.layer * heads + head.head) : null;
}

/** "± 0.41". `largest`, the largest value that is shown with it, decides the number of decimals. */
export function plusMinus(std: number, largest: number): string {
  return `± ${plain(std, largest)}`;
}

/** " ± 0.41 over 8 prompts", or "". */
export function overPrompts(spread: Spread | null, largest: number): string {
  return spread ? ` ${plusMinus(spread.std, largest)} over ${plural(spread.prompts, "prompt")}` : "";
}

// How a figure spreads over the prompts: its mean, one standard deviation, and what each prompt has.
import { parseHead, plain } from "../../base/format";
import type { Attribution, Store } from "../../state/store";

export interface Spread {
  mean: number;
  std: number;
  prompts: number;
  /** One figure a prompt; null where there are too many to send. */
  each: Float32Array | null;
}

/** Of one row; null where one prompt is in view, or the row is not there. */
export function spreadOf(data: Attribution | null, row: number): Spread | null {
  const std = data?.std?.[row];
  const mean = data?.rows[row];
  if (!data || std === undefined || mean === undefined || Number.isNaN(mean)) return null;
  const { prompts } = data.reply;
  return { mean, std, prompts, each: data.perPrompt?.subarray(row * prompts, (row + 1) * prompts) ?? null };
}

/** Of one head, in the mean over prompts. */
export function headSpread(store: Store, name: string): Spread | null {
  const head = parseHead(name);
  const heads = store.facts.value?.heads ?? 0;
  return head && head.head < heads ? spreadOf(store.headRows.value, head.layer * heads + head.head) : null;
}

/** "± 0.41", to the decimals of what it belongs to. */
export function plusMinus(std: number, largest: number): string {
  return `± ${plain(std, largest)}`;
}

/** " ± 0.41 over 8 prompts", or nothing. */
export function overPrompts(spread: Spread | null, largest: number): string {
  return spread ? ` ${plusMinus(spread.std, largest)} over ${spread.prompts} prompts` : "";
}

// The badge if each position has its own target: at how many positions the rows add up.
import { amount, plural } from "../../base/format";
import type { Store } from "../../state/store";

interface Each {
  /** "14 of 14 positions add up" */
  words: string;
  /** "14 of 14" */
  short: string;
  /** A whole sentence, with the largest gap. */
  whole: string;
  /** Whether the rows do not add up at some positions. */
  misses: boolean;
}

/** The words of the badge; null for other targets, and until the reply is there. */
export function eachWords(store: Store): Each | null {
  const found = store.nextShown.value;
  if (!found) return null;
  const { adding, count, worst, tolerance, missing = [] } = found.reply;
  if (missing.length > 0 || adding === null) return null; // the other words of the badge say why
  const short = `${adding} of ${count}`;
  return {
    words: `${short} positions add up`,
    short,
    whole:
      `At ${adding === count ? "all" : short} ${adding === count ? plural(count, "position") : "positions"} ` +
      `that have a next token, the rows add up to the model’s own number. The largest gap is ${amount(worst ?? 0)}; ` +
      `up to ${amount(tolerance)} is rounding.`,
    misses: adding < count,
  };
}

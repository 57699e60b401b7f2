// The badge of a target inside the model: the sum of the rows, and the cached value that this sum should equal.
import { headName, plain, signed } from "../../base/format";
import type { Store } from "../../state/store";
import { isInside, scoreIn } from "../../state/target";
import type { InnerFacts } from "../../wire/protocol.gen";

/** The sum of the rows: "+1.000 · log of 0.60 / 0.22, as cached"; null if the target is not inside the model. */
export function insideSum(store: Store, inner: InnerFacts | null | undefined, sum: number): string | null {
  const target = store.target.value;
  if (!isInside(target)) return null;
  const written = signed(sum, sum, 1);
  const through = target.through?.at(-1);
  if (through) {
    const from = through.source === null ? "" : ` from ${store.tokenName(through.source)}`;
    return `${written}, what ${headName(through.layer, through.head)} contributes${from}`;
  }
  const score = scoreIn(target);
  const { attention = null, versus_attention: other = null } = inner ?? {};
  if (score?.versus === "mean")
    return !store.isMean.value && attention !== null
      ? `${written} · log of ${weight(attention)}, minus the mean log weighted by attention, as cached`
      : `${written} · log of its attention, minus the mean log weighted by attention, as cached`;
  if (score && !store.isMean.value && score.versus !== null && attention !== null && other !== null)
    return `${written} · log of ${weight(attention)} / ${weight(other)}, as cached`;
  return `${written}, as cached`;
}

/** A sentence that explains the number of an attention score; "" for other targets. */
export function scoreMeaning(store: Store): string {
  const score = scoreIn(store.target.value);
  if (!score) return "";
  const times = (than: string): string =>
    store.isMean.value ? "" : `: the source gets e to the power of this number times ${than}`;
  switch (score.versus) {
    case null:
      return "The number is the attention score, before the softmax.";
    case "mean":
      return (
        "The number is the score of the source, minus the mean of all scores, weighted by the attention. It equals " +
        "the log of the attention to the source, minus the mean log with the same weights" +
        `${times("the geometric mean of all attention, with these weights")}.`
      );
    default:
      return (
        "The number is the score of the source, minus the score of the other source. It equals the log of the ratio " +
        `of their attention${times("the attention of the other source")}.`
      );
  }
}

/** An attention weight with two significant digits, so that a reader can check the written sum roughly. */
const weight = (value: number): string => plain(value, value > 0 ? value : 1);

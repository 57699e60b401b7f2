// The badge of a target inside the model: what the rows add up to, and what of the cache that is.
import { headName, plain, signed } from "../../base/format";
import type { Store } from "../../state/store";
import { isInside, scoreIn } from "../../state/target";
import type { InnerFacts } from "../../wire/protocol.gen";

/** "+1.000 · log of 0.60 / 0.22, as cached"; null for logits. */
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
  if (score?.versus === "mean") return `${written}: its score minus the mean of what it reads, as cached`;
  const { attention = null, versus_attention: other = null } = inner ?? {};
  if (score && !store.isMean.value && score.versus !== null && attention !== null && other !== null)
    return `${written} · log of ${weight(attention)} / ${weight(other)}, as cached`;
  return `${written}, as cached`;
}

/** Two significant digits: their ratio must give the sum. */
const weight = (value: number): string => plain(value, value > 0 ? value : 1);

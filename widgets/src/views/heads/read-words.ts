// A line about the difference of two runs. The difference has two parts: the components write different vectors in the
// two runs, and each run reads the target from a vector differently. The line says how much the second part is.
import { signed } from "../../base/format";
import type { Comparison } from "../../state/comparison";
import { rowSum } from "../header/ledger";

/** "+0.12 of −4.51 is due to the norm or the target, not to what is written". */
export function readWords({ difference, read }: Comparison): string {
  const whole = rowSum(difference);
  const largest = Math.max(Math.abs(whole), Math.abs(read));
  const part = `${signed(read, largest)} of ${signed(whole, largest)}`;
  return `${part} is due to the norm or the target, not to what is written`;
}

// A line about the difference of two runs. A component's difference has two parts: it writes another vector, or the same
// vector is read with another weight. The line says how much comes from the second part.
import { signed } from "../../base/format";
import type { Comparison } from "../../state/comparison";
import { rowSum } from "../header/ledger";

/** "how it is read: +0.12 of −4.51". */
export function readWords({ difference, read }: Comparison): string {
  const whole = rowSum(difference);
  const largest = Math.max(Math.abs(whole), Math.abs(read));
  return `how it is read: ${signed(read, largest)} of ${signed(whole, largest)}`;
}

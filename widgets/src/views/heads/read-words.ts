// A line about the difference of two runs. Such a difference has two parts: components write other vectors, and the
// target is read from the vectors in another way. The line says how much comes from the second part.
import { signed } from "../../base/format";
import type { Comparison } from "../../state/comparison";
import { rowSum } from "../header/ledger";

/** "how it is read: +0.12 of −4.51". */
export function readWords({ difference, read }: Comparison): string {
  const whole = rowSum(difference);
  const largest = Math.max(Math.abs(whole), Math.abs(read));
  return `how it is read: ${signed(read, largest)} of ${signed(whole, largest)}`;
}

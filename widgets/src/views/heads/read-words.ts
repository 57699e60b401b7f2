// One line: how much of a difference of two runs is read differently, not written differently.
import { signed } from "../../base/format";
import type { Comparison } from "../../state/comparison";
import { rowSum } from "../header/ledger";

/** "how it is read: +0.12 of −4.51". */
export function readWords({ difference, read }: Comparison): string {
  const whole = rowSum(difference);
  const largest = Math.max(Math.abs(whole), Math.abs(read));
  return `how it is read: ${signed(read, largest)} of ${signed(whole, largest)}`;
}

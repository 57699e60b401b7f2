// How a check of a snapshot fails, and the checks that are used in several places.
import { parseHead } from "../base/format";
import type { Position } from "../state/target";
import type { CacheFacts } from "../wire/protocol.gen";

export class FailedCheck extends Error {}

export function ensure(holds: boolean, why: string): asserts holds {
  if (!holds) throw new FailedCheck(why);
}

export function ensureCount(noun: string, count: number, least: number, most: number): void {
  ensure(
    Number.isInteger(count) && count >= least && count <= most,
    `it has ${count} ${noun}, and only ${least} to ${most} can be drawn`,
  );
}

export function isIndex(index: number, count: number): boolean {
  return Number.isInteger(index) && index >= 0 && index < count;
}

/** Whether the prompts have this position. They always have “last”. */
export const isPosition = (position: Position, count: number): boolean =>
  position === "last" || isIndex(position, count);

export type Size = Pick<CacheFacts, "layers" | "heads">;

/** Whether the model has a head of this name. */
export function isHead(name: string, { layers, heads }: Size): boolean {
  const head = parseHead(name);
  return head !== null && isIndex(head.layer, layers) && isIndex(head.head, heads);
}

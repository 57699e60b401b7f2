// Sentences about the position map.

import { parseHead, quoted, signed } from "../../base/format";
import type { Sentence } from "../../base/sentence";
import { lensMeaning } from "../../draw/axis";
import type { Store } from "../../state/store";
import type { PositionPicture } from "./position-picture";

/** The layer that a row belongs to, if any. */
export function layerOf(label: string): number | null {
  const match = /^(\d+)_/.exec(label);
  return match ? Number(match[1]) : (parseHead(label)?.layer ?? null);
}

export function positionSentence(
  store: Store,
  { by, reply, values, own }: PositionPicture,
  { row, column }: { row: number; column: number },
): Sentence {
  const where = `at ${quoted(store.tokenName(column))} (position ${column})`;
  const quantity = store.quantity.value;
  if (row < 0) {
    const value = own[column] ?? NaN;
    return [`The model’s own ${quantity} ${where}: `, { stress: signed(value, store.largest.value) }];
  }
  const label = reply.labels[row] ?? "";
  const value = values[row * reply.positions + column] ?? NaN;
  const stress = { stress: signed(value, store.largest.value) };
  if (Number.isNaN(value)) return [`${label}: not known ${where}`];
  if (by === "accumulated")
    return [`The stream ${lensMeaning(label)} (${label}): `, stress, ` of the ${quantity} ${where}`];
  return [
    `${label} ${value < 0 ? "takes" : "adds"} `,
    stress,
    ` ${value < 0 ? "from" : "to"} the ${quantity} ${where}`,
  ];
}

// Sentences about the position map.

import { quoted, signed } from "../../base/format";
import type { Sentence } from "../../base/sentence";
import { lensMeaning } from "../../state/axis";
import { hasNext } from "../../state/next-tokens";
import type { Store } from "../../state/store";
import { componentsOf } from "../../wire/components";
import type { PositionPicture } from "./position-picture";

export function positionSentence(
  store: Store,
  { by, reply, values, own }: PositionPicture,
  { row, column }: { row: number; column: number },
): Sentence {
  const where = `at ${quoted(store.tokenName(column))} (position ${column})`;
  if (store.asksEach.value && !hasNext(store, column)) return [`Nothing came next ${where}`];
  const quantity = store.asksEach.value
    ? `${store.quantity.value} of the next token ${quoted(store.tokenName(column + 1))}`
    : store.quantity.value;
  if (row < 0) {
    const value = own[column] ?? NaN;
    return [`The model’s own ${quantity} ${where}: `, { stress: signed(value, store.largest.value) }];
  }
  const component = componentsOf(reply.components)[row];
  const label = component?.label ?? "";
  const value = values[row * reply.positions + column] ?? NaN;
  const stress = { stress: signed(value, store.largest.value) };
  if (Number.isNaN(value)) return [`${label}: not known ${where}`];
  if (by === "accumulated" && component)
    return [`The stream ${lensMeaning(component)} (${label}): `, stress, ` of the ${quantity} ${where}`];
  return [`${label} adds `, stress, ` to the ${quantity} ${where}`];
}

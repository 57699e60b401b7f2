// What a head reads at one destination: the request for this row of its attention, and the row in the reply.
import { parseHead } from "../../base/format";
import { frameOf } from "../../draw/plane";
import { attention } from "../../state/questions";
import type { Store } from "../../state/store";
import { readAt } from "../../state/target";
import type { Ask, Result } from "../../wire/client";
import type { AttentionBuffer, Step } from "../../wire/protocol.gen";
import { unpacked } from "../attention/attention-data";

type What = AttentionBuffer["what"];
export interface Row {
  /** The source of the first value. */
  start: number;
  values: Float32Array;
}

/**
 * The request for a head's attention at the position where it writes to the target; null if there is no single such
 * position.
 */
export function headRow(
  store: Store,
  name: string,
  { target, position = "last" }: Step,
  weighting: "pattern" | "contribution",
): Extract<Ask, { kind: "attention" }> | null {
  const at = readAt(target, position);
  if (!parseHead(name) || at === null) return null;
  const row = at === "last" ? store.lastPosition.value : at;
  const rows = row === null ? {} : { rows: { start: row, stop: row + 1 } };
  return attention({ ...store.shown, target, position }, name, weighting, rows);
}

/**
 * The first of these parts of the reply that is a single row. In a mean over prompts, it is the mean of one row of each
 * prompt, and these rows may be at different destinations.
 */
export function rowIn({ reply, buffers }: Result<"attention">, parts: readonly What[]): Row | null {
  const frame = frameOf(reply);
  for (const what of parts) {
    const at = reply.parts.findIndex((part) => part.what === what);
    const part = reply.parts[at];
    const isLine = what === "brings" || what === "reads";
    if (!part || (frame.rows.stop - frame.rows.start > 1 && !isLine)) continue;
    const one = { ...frame, rows: { start: 0, stop: 1 } };
    const values = unpacked({ ...part, wide: part.wide || isLine }, buffers[at], one);
    return { start: frame.columns.start, values };
  }
  return null;
}

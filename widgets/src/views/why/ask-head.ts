// Asks a head in turn: what it moves into a column's target, from the source that contributes most to it.
import { parseHead } from "../../base/format";
import { frameOf } from "../../draw/plane";
import { attention } from "../../state/questions";
import type { Store } from "../../state/store";
import { readAt, throughHead } from "../../state/target";
import { ask, askWhy } from "../../state/trail";
import type { Client, Result } from "../../wire/client";
import { unpacked } from "../attention/attention-data";
import { strongest } from "../attention/attention-words";
import type { Asked } from "./why-data";

const LANE = "why head";

/**
 * What the head moves into the column's target (`moves`), or why it reads its source there (`reads`). Resolves once
 * that is asked, or another question has replaced it; rejects if the kernel cannot tell the source.
 */
export async function askHead(
  store: Store,
  client: Client,
  name: string,
  asked: Asked,
  what: "moves" | "reads",
): Promise<void> {
  const head = parseHead(name);
  const at = readAt(asked.target, asked.position);
  if (!head || at === null) return;
  const row = at === "last" ? store.lastPosition.peek() : at;
  const rows = row === null ? {} : { rows: { start: row, stop: row + 1 } };
  const question = attention({ ...store.shown, ...asked }, name, "contribution", rows);
  const result = question && (await client.latest(LANE, question));
  const source = result ? contributesMost(result) : null;
  if (source === null) return;
  if (what === "reads") askWhy(store, { head: name, destination: row, source });
  else ask(store, throughHead(asked.target, { ...head, source }), asked.position);
}

/** The source with the largest contribution; where contributions are not known, with the most attention. */
function contributesMost({ reply, buffers }: Result<"attention">): number | null {
  for (const what of ["contribution", "brings", "pattern", "reads"] as const) {
    const at = reply.parts.findIndex((part) => part.what === what);
    const part = reply.parts[at];
    const frame = frameOf(reply);
    if (!part || (frame.rows.stop - frame.rows.start > 1 && (what === "contribution" || what === "pattern"))) continue;
    const row = { ...frame, rows: { start: 0, stop: 1 } };
    const [found] = strongest(
      unpacked({ ...part, wide: part.wide || what === "brings" || what === "reads" }, buffers[at], row),
      1,
    );
    if (found !== undefined) return found + frame.columns.start;
  }
  return null;
}

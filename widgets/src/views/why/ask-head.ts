// Asks the next question about a head: what it moves into a column's target, or why it reads its source there. The
// source is the one that contributes most.
import { parseHead } from "../../base/format";
import type { Store } from "../../state/store";
import { readAt, throughHead } from "../../state/target";
import { ask, askWhy } from "../../state/trail";
import type { Client, Result } from "../../wire/client";
import { strongest } from "../attention/attention-words";
import { headRow, rowIn } from "./head-row";
import type { Asked } from "./why-data";

const LANE = "why head";

/** Resolves when the question is asked or replaced by a newer one. Rejects if the kernel cannot find the source. */
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
  const question = headRow(store, name, asked, "contribution");
  const result = question && (await client.latest(LANE, question));
  const source = result ? contributesMost(result) : null;
  if (source === null) return;
  const destination = at === "last" ? store.lastPosition.peek() : at;
  if (what === "reads") askWhy(store, { head: name, destination, source });
  else ask(store, throughHead(asked.target, { ...head, source }), asked.position);
}

/** The source whose contribution is farthest from zero; if contributions are not known, the one with most attention. */
function contributesMost(result: Result<"attention">): number | null {
  const row = rowIn(result, ["contribution", "brings", "pattern", "reads"]);
  const [found] = row ? strongest(row.values, 1) : [];
  return row && found !== undefined ? found + row.start : null;
}

// Checks a snapshot from outside, for example from a notebook's output, before anything is drawn: its types, counts and
// sizes. A snapshot that fails the check is not drawn, and a sentence says why.
import * as v from "valibot";
import { isTargetOf } from "../state/selectable";
import { NOTHING } from "../state/target";
import { charts } from "../state/view-questions";
import * as wire from "../wire/protocol.check.gen";
import type { CacheFacts, Target } from "../wire/protocol.gen";
import { ensure, ensureCount, FailedCheck, isHead, isIndex, isPosition } from "./ensure";
import { isSmall, MAX } from "./limits";
import { checkReply, type Replied, type Reply } from "./reply-check";
import { isRecorded } from "./requests";
import { chartOf, type Entry, keyOf, type Snapshot } from "./snapshot";

export type Checked = { snapshot: Snapshot; trouble: null } | { snapshot: null; trouble: string };

const SnapshotShape = v.object({
  name: v.string(),
  selection: wire.Shown,
  preview: v.exactOptional(v.nullable(v.string())),
  lacks: v.optional(v.pipe(v.array(v.pipe(v.string(), v.maxLength(200))), v.maxLength(20))),
  saved: v.pipe(
    v.string(),
    v.check((date) => !Number.isNaN(Date.parse(date))),
  ),
  entries: v.pipe(
    v.array(
      v.looseObject({
        ask: v.looseObject({ kind: v.string() }),
        reply: v.optional(v.unknown()),
        buffers: v.optional(v.unknown()),
      }),
    ),
    v.maxLength(MAX.entries),
  ),
});
const Buffers = v.object({ buffers: v.pipe(v.array(v.pipe(v.string(), v.check(isBase64))), v.maxLength(4)) });

const OTHER_MODEL = "it has a target that its model does not have";

/** The snapshot, copied field by field; or the reason why it is not drawn, as the end of a sentence. */
export function checkSnapshot(value: unknown): Checked {
  try {
    ensure(isSmall(value), "it is too large, or nested too deeply");
    return { snapshot: checked(value), trouble: null };
  } catch (error) {
    if (error instanceof FailedCheck) return { snapshot: null, trouble: error.message };
    if (error instanceof v.ValiError) return { snapshot: null, trouble: sentenceFor(error.issues[0]) };
    throw error;
  }
}

function checked(value: unknown): Snapshot {
  const {
    name,
    selection,
    preview = null,
    saved,
    lacks = [],
    entries,
  } = v.parse(SnapshotShape, value, { abortEarly: true });
  const replied = entries.flatMap(({ ask, reply, buffers }): (Replied & { entry: Entry })[] => {
    const { kind } = ask;
    if (!isRecorded(kind) || reply === undefined) return []; // only a kernel may send code, a page or predictions
    const { buffers: packed } = v.parse(Buffers, { buffers: buffers ?? [] }, { abortEarly: true });
    // Most entries leave out their target, because it is the selection's target.
    const { target, ...about } = v.parse(
      wire.REQUESTS[kind],
      { ...ask, target: ask["target"] ?? NOTHING },
      { abortEarly: true },
    ) as { target?: Target } & Record<string, unknown>;
    const checkedAsk = target && ask["target"] !== undefined ? { ...about, target } : about;
    const checkedReply = v.parse(wire.REPLIES[kind], reply, { abortEarly: true });
    const item = { kind, ask: checkedAsk, reply: checkedReply, bytes: packed.map(byteLength) } as Replied;
    return [
      {
        ...item,
        entry: {
          ask: checkedAsk as Entry["ask"],
          reply: checkedReply as Reply,
          ...(packed.length > 0 ? { buffers: packed } : {}),
        },
      },
    ];
  });
  const [facts, ...otherFacts] = replied.flatMap((item) => (item.kind === "describe" ? [item.reply] : []));
  ensure(facts !== undefined && otherFacts.length === 0, "it does not describe its cache exactly once");
  checkFacts(facts);
  for (const item of replied) {
    checkReply(item, facts);
    if ("target" in item.ask) ensure(isTargetOf(item.ask.target, facts), OTHER_MODEL);
  }
  checkSelection({ selection, preview }, facts);
  const key = (ask: Entry["ask"]): string => keyOf(ask, { selection, defaults: wire.DEFAULTS });
  const keys = new Set(replied.map(({ entry: { ask } }) => key(ask)));
  const selected = { ...wire.UNSELECTED, ...selection };
  for (const chart of charts(selected))
    ensure(
      keys.has(key({ ...chart, padding: selected.padding })),
      `it has no “${chartOf(chart)}” values for its selection`,
    );
  return {
    name,
    selection,
    preview,
    saved,
    defaults: wire.DEFAULTS,
    lacks,
    entries: replied.map(({ entry }) => entry),
  };
}

function checkFacts({ layers, heads, prompts, positions, last }: CacheFacts): void {
  ensureCount("layers", layers, 1, MAX.layers);
  ensureCount("heads", heads, 0, MAX.heads);
  ensureCount("layers × heads", layers * heads, 0, MAX.cells);
  ensureCount("prompts", prompts, 1, MAX.prompts);
  ensureCount("positions", positions, 1, MAX.positions);
  ensure(
    last.length === prompts && last.every((position) => isIndex(position, positions)),
    "its last positions do not match its prompts",
  );
}

function checkSelection({ selection, preview }: Pick<Snapshot, "selection" | "preview">, shape: CacheFacts): void {
  const { layers, heads, prompts, positions } = shape;
  const { prompt = null, position = "last", layer = null, target, top_k = 5, heads: pinned = [] } = selection;
  const isNullOrIndex = (index: number | null, count: number): boolean => index === null || isIndex(index, count);
  ensure(
    isNullOrIndex(prompt, prompts) && isPosition(position, positions) && isNullOrIndex(layer, layers),
    "its selection is not in its cache",
  );
  ensureCount(
    "contrasts",
    target.contrasts.length,
    target.direction || target.inner || target.next_token ? 0 : 1,
    MAX.contrasts,
  );
  const targets = [target, ...(selection.trail ?? []).map((step) => step.target)];
  ensure(
    targets.every((one) => isTargetOf(one, shape)) &&
      (selection.trail ?? []).every((step) => isPosition(step.position ?? "last", positions)),
    OTHER_MODEL,
  );
  const { feeds = null } = selection;
  ensure(
    feeds === null || (isIndex(feeds.layer, layers) && isIndex(feeds.head, heads) && isIndex(feeds.source, positions)),
    "its selection is not in its cache",
  );
  ensure([0, 1, prompts].includes(target.contrasts.length), "it has a different number of targets than of prompts");
  ensureCount("rows of the ranking", top_k, 1, MAX.topK);
  ensureCount("pinned heads", pinned.length, 0, MAX.pinned);
  ensure(
    [...pinned, ...(preview === null || preview === undefined ? [] : [preview])].every((name) => isHead(name, shape)),
    "its model does not have all of the pinned heads",
  );
  ensure(new Set(pinned).size === pinned.length, "a head is pinned twice");
}

function isBase64(text: string): boolean {
  return text.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(text);
}

function byteLength(base64: string): number {
  return (base64.length / 4) * 3 - (base64.endsWith("==") ? 2 : base64.endsWith("=") ? 1 : 0);
}

/** Names the field that is wrong. The sentence has only names of our fields, never a value from outside. */
function sentenceFor(issue: v.BaseIssue<unknown>): string {
  const path = issue.path
    ?.flatMap(({ key }) => (typeof key === "string" && /^\w{1,20}$/.test(key) ? [key] : []))
    .join(".");
  return path ? `its “${path}” is not valid` : "it is not a picture of a panel";
}

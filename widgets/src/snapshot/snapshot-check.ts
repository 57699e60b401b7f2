// Checks a snapshot from outside, for example from a notebook's output, before anything is drawn: its types, counts and
// sizes. A snapshot that fails the check is not drawn, and a sentence says why.
import * as v from "valibot";
import { parseHead } from "../base/format";
import { blocks, type Frame, frameOf, length, stepOf, within } from "../draw/plane";
import { charts } from "../state/questions";
import { isTargetOf } from "../state/selectable";
import type { Position } from "../state/target";
import { NOTHING } from "../state/target";
import type { Ask } from "../wire/client";
import { isWhole } from "../wire/components";
import { isReplyTo } from "../wire/is-reply-to";
import * as wire from "../wire/protocol.check.gen";
import type {
  AttentionBuffer,
  CacheFacts,
  ComponentTable,
  LensCell,
  PositionPair,
  SegmentLabel,
  Target,
} from "../wire/protocol.gen";
import { isRecorded, type RecordedKind } from "./requests";
import { chartOf, type Entry, keyOf, PINNED, type Snapshot } from "./snapshot";

export type Checked = { snapshot: Snapshot; trouble: null } | { snapshot: null; trouble: string };

/** Real models stay far below these limits. A snapshot within them is drawn quickly. */
const MAX = {
  /** The maximum number of characters: in all texts together, and in one text. */
  characters: 3_000_000,
  letters: 20_000,
  /** The maximum number of values in the snapshot as JSON, and of levels of nesting. */
  values: 400_000,
  depth: 12,
  entries: 1_000,
  contrasts: 4_096,
  notes: 50,
  /** Characters of one note. */
  note: 2_000,
  texts: 1_000,
  layers: 1_024,
  heads: 1_024,
  cells: 20_000,
  positions: 40_000,
  prompts: 40_000,
  pinned: PINNED,
  topK: 50,
  side: 64,
  mapped: 200_000,
  segments: 1_000,
};
/** The largest number of rows that are not heads: embeddings, and each layer's sublayers and biases. */
const maxOtherRows = (layers: number): number => 8 * layers + 64;

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

type Reply = NonNullable<Entry["reply"]>;

/** A request of one kind with its reply, and the byte count of each buffer. */
type Replied = {
  [K in RecordedKind]: {
    kind: K;
    ask: v.InferOutput<(typeof wire.REQUESTS)[K]>;
    reply: v.InferOutput<(typeof wire.REPLIES)[K]>;
    bytes: number[];
  };
}[RecordedKind];

class FailedCheck extends Error {}
function ensure(holds: boolean, why: string): asserts holds {
  if (!holds) throw new FailedCheck(why);
}

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

type Size = Pick<CacheFacts, "layers" | "heads">;

/** Whether the model has a head of this name. */
function isHead(name: string, { layers, heads }: Size): boolean {
  const head = parseHead(name);
  return head !== null && isIndex(head.layer, layers) && isIndex(head.head, heads);
}

/** Whether a table of components is complete, and the model has their layers and heads. */
function areComponents(table: ComponentTable, { layers, heads }: Size): boolean {
  const isThere = (kind: number, row: number): boolean => {
    const [layer = null, index = null] = [table.layer[row], table.index[row]];
    const most = table.kinds[kind] === "head" ? heads : Infinity;
    return (layer === null || isIndex(layer, layers)) && (index === null || isIndex(index, most));
  };
  return isWhole(table) && table.kind.every(isThere);
}

const OTHER_MODEL = "it has a target that its model does not have";

/** Whether the prompts have this position. They always have “last”. */
const isPosition = (position: Position, count: number): boolean => position === "last" || isIndex(position, count);

/** Whether a row of the token lens has a cell for each column, and a probability for each token. */
const areCells = (row: (LensCell | null)[], columns: number): boolean =>
  row.length === columns && row.every((cell) => cell === null || cell.tokens.length === cell.probabilities.length);

/** Whether the pairs are in the order of the first run's positions, and all positions are valid. Null is valid, too. */
const arePairs = (pairs: PositionPair[] | null, positions: number): boolean =>
  pairs === null ||
  pairs.every(
    ({ first, second }, i) =>
      isIndex(first, positions) && first > (pairs[i - 1]?.first ?? -1) && second >= 0 && second < MAX.positions,
  );

/** Whether these are ranges of positions in their order, without overlap. */
const areSegments = (segments: SegmentLabel[], positions: number): boolean =>
  segments.length <= MAX.segments &&
  segments.every(
    ({ start, end }, i) =>
      start >= (segments[i - 1]?.end ?? 0) && start < end && end <= positions && Number.isInteger(end),
  );

// --- the facts, the selection and each reply -------------------------------------------------------------------------
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

/** Requires that a reply belongs to its request, and has as many values as names. */
function checkReply({ kind, ask, reply, bytes }: Replied, facts: CacheFacts): void {
  const { layers, heads, prompts, positions } = facts;
  const cells = layers * heads;
  if ("notes" in reply) ensureCount(`notes in its “${kind}” entry`, reply.notes.length, 0, MAX.notes);
  if ("notes" in reply)
    ensure(
      reply.notes.every((note) => note.length <= MAX.note),
      `a note in its “${kind}” entry is too long`,
    );
  const ensureMatch = (holds: boolean, why = `its “${kind}” entry has values that do not match their names`): void =>
    ensure(holds, why);
  const ensureAnswer = (holds: boolean): void =>
    ensureMatch(holds, `its “${kind}” entry has the reply to another request`);
  if ("components" in reply) {
    ensureCount(`rows in its “${kind}” entry`, reply.components.kind.length, 0, cells + maxOtherRows(layers));
    ensureMatch(areComponents(reply.components, facts));
  }
  ensureAnswer(isReplyTo(ask as Ask, reply as Reply));
  if ("prompt" in ask) ensureAnswer(ask.prompt === null || ask.prompt === undefined || isIndex(ask.prompt, prompts));
  if ("position" in ask) ensureAnswer(isPosition(ask.position ?? "last", positions));
  switch (kind) {
    case "describe":
      return ensureMatch(
        bytes.length === 0 &&
          reply.missing.length <= MAX.texts &&
          (reply.points === undefined ||
            (areComponents(reply.points, facts) && reply.points.kind.length <= MAX.texts * 4)),
      );
    case "tokens":
      return ensureMatch(
        reply.tokens.every(({ varies = [] }) => varies.length <= 32) &&
          reply.tokens.length === positions &&
          bytes.length === 0,
      );
    case "attribute": {
      const rows = reply.components.kind.length;
      ensureAnswer(reply.prompts === (ask.prompt === null || ask.prompt === undefined ? prompts : 1));
      ensureMatch(rows > 0 && (ask.by !== "head" || rows >= cells) && reply.tolerance >= 0);
      const [values, std, perPrompt, constants] = bytes;
      ensureMatch(values === rows * 4 && (std === undefined || std === rows * 4));
      return ensureMatch(
        reply.per_prompt ? perPrompt === rows * prompts * 4 && constants === prompts * 4 : bytes.length <= 2,
      );
    }
    case "compare": {
      const rows = reply.components.kind.length;
      ensureAnswer(reply.prompts === (ask.prompt === null || ask.prompt === undefined ? prompts : 1));
      ensureMatch(rows > 0 && (ask.by !== "head" || rows >= cells) && reply.difference.tolerance >= 0);
      return ensureMatch(bytes.length === 4 && bytes.every((size) => size === rows * 4));
    }
    case "compare-attention": {
      const { pairs = null } = reply;
      const count = pairs === null ? positions : pairs.length;
      ensureAnswer(isIndex(ask.layer, layers) && isIndex(ask.head, heads) && reply.positions === count && count > 0);
      ensureMatch(arePairs(pairs, positions));
      const frame = checkedFrame(reply, count);
      ensureMatch(reply.parts.length === 3 && bytes.length === 3);
      return reply.parts.forEach((part, i) => ensureMatch(!isRow(part) && bytes[i] === sizeOf(part, frame)));
    }
    case "compare-token-lens": {
      ensureAnswer(reply.start === ask.start);
      const columns = ask.stop - ask.start;
      ensureMatch(isIndex(ask.start, positions) && columns > 0 && ask.stop <= positions && bytes.length === 0);
      ensureMatch(reply.beside.length === columns && reply.beside.every((at) => at === null || at < MAX.positions));
      return [reply.first, reply.second].forEach((cells) =>
        ensureMatch(cells.length === reply.points.length && cells.every((row) => areCells(row, columns))),
      );
    }
    case "pairing":
      return ensureMatch(
        bytes.length === 0 && arePairs(reply.pairs, positions) && (reply.how !== "none" || reply.pairs === null),
      );
    case "effects": {
      const count = (ask.of === "stream" ? layers * positions : cells) * 4;
      ensureCount("cells in its map of effects", count / 4, 0, MAX.mapped);
      ensureMatch(reply.done >= 0 && reply.total >= 0 && reply.prompts >= 0);
      return ensureMatch(bytes.length === 3 && bytes.every((size) => size === count || size === 0));
    }
    case "attention": {
      ensureAnswer(isIndex(ask.layer, layers) && isIndex(ask.head, heads) && reply.positions === positions);
      const frame = checkedFrame(reply, positions);
      ensureMatch(reply.parts.length === bytes.length);
      return reply.parts.forEach((part, i) =>
        ensureMatch(bytes[i] === (isRow(part) ? positions * 4 : sizeOf(part, frame))),
      );
    }
    case "blend": {
      ensureAnswer((ask.layer === null || isIndex(ask.layer, layers)) && reply.positions === positions);
      return ensureMatch(
        bytes.length === 1 && !isRow(reply.part) && bytes[0] === sizeOf(reply.part, checkedFrame(reply, positions)),
      );
    }
    case "thumbnails":
      ensureAnswer(isIndex(ask.layer, layers) && reply.positions === positions);
      ensureCount("cells per side of a thumbnail", reply.side, 1, MAX.side);
      return ensureMatch(reply.limits.length === heads && bytes.length === 1 && bytes[0] === heads * reply.side ** 2);
    case "scores":
      return ensureMatch(bytes.length === 1 && bytes[0] === cells * 4);
    case "positions":
      ensureCount("cells in its position map", reply.components.kind.length * positions, 0, MAX.mapped);
      ensureAnswer(reply.positions === positions);
      return ensureMatch(
        bytes.length === 2 && bytes[0] === reply.components.kind.length * positions * 4 && bytes[1] === positions * 4,
      );
    case "token-lens": {
      ensureAnswer(reply.start === ask.start);
      const columns = ask.stop - ask.start;
      return ensureMatch(
        isIndex(ask.start, positions) &&
          columns > 0 &&
          ask.stop <= positions &&
          bytes.length === 0 &&
          reply.cells.length === reply.points.length &&
          reply.cells.every((row) => areCells(row, columns)),
      );
    }
    case "next-tokens": {
      ensureAnswer(reply.positions === positions && reply.runner_up.length <= positions);
      ensureMatch(reply.count >= 0 && (reply.adding ?? 0) <= reply.count && reply.tolerance >= 0);
      const [logProb, rank, ofLayers, ofHeads] = bytes;
      ensureMatch(bytes.length === 4 && logProb === positions * 4 && rank === positions * 4);
      if (ask.neurons?.length) return ensureMatch(ofLayers === ask.neurons.length * positions * 4 && ofHeads === 0);
      return ensureMatch(ofLayers === layers * positions * 4 && (ofHeads === 0 || ofHeads === cells * positions * 4));
    }
    case "neurons":
      return ensureMatch(
        bytes.length === 1 &&
          bytes[0] === reply.components.kind.length * 4 &&
          reply.components.kind.length <= 2 * MAX.topK,
      );
    case "pairs": {
      const [down, across] = [reply.query.kind.length, reply.key.kind.length];
      ensureAnswer(down <= MAX.topK && across <= MAX.topK && areComponents(reply.query, facts));
      ensureAnswer(areComponents(reply.key, facts));
      return ensureMatch(bytes.length === 1 && bytes[0] === (down + 1) * (across + 1) * 4);
    }
    case "features": {
      const rows = reply.components.kind.length;
      ensureAnswer(reply.prompts === (ask.prompt === null || ask.prompt === undefined ? prompts : 1));
      ensureAnswer(areComponents(reply.row, facts) && reply.row.kind.length === 1);
      ensureMatch(rows > 0 && rows <= 2 * MAX.topK && reply.links.length === rows && reply.tolerance >= 0);
      return ensureMatch(bytes.length === 2 && bytes.every((size) => size === rows * 4));
    }
    case "feature-tokens":
      ensureAnswer(reply.feature === ask.feature && reply.positions === positions);
      return ensureMatch(bytes.length === 1 && bytes[0] === positions * 4);
    case "head-tokens": {
      const lists = [reply.output_top, reply.output_bottom, reply.source_top, reply.source_bottom];
      ensureAnswer(isIndex(ask.layer, layers) && isIndex(ask.head, heads));
      ensureAnswer(reply.source === null || isIndex(reply.source, positions));
      return ensureMatch(bytes.length === 0 && lists.every((list) => list.length <= MAX.topK));
    }
    case "segments":
      ensureMatch(bytes.length === 0 && reply.rules.length <= 8);
      return ensureMatch(areSegments(reply.segments, positions) && areSegments(reply.turns, positions));
    case "segment-map": {
      ensureAnswer(isIndex(ask.layer, layers) && isIndex(ask.head, heads));
      const count = reply.segments.length;
      ensureCount("segments in a map", count, 1, MAX.segments);
      ensureMatch(areSegments(reply.segments, positions) && bytes.length === 3 && bytes[0] === count ** 2 * 4);
      return ensureMatch(bytes[1] === count * 4 && bytes[2] === count * 4);
    }
    case "segment-heads": {
      const { destination, source, heads: names, count } = reply;
      ensureMatch(isIndex(source, positions) && (destination === null || isIndex(destination, positions)));
      ensureMatch(names.length <= MAX.topK && count >= names.length && bytes.length === 1);
      return ensureMatch(bytes[0] === names.length * 4 && names.every((name) => isHead(name, facts)));
    }
    default:
      return kind satisfies never;
  }
}

/** The rows and columns that a map covers, after checking them. */
function checkedFrame(reply: Parameters<typeof frameOf>[0], positions: number): Frame {
  const frame = frameOf(reply);
  for (const span of [frame.rows, frame.columns])
    ensure(
      isIndex(span.start, positions) && span.start < span.stop && span.stop <= positions,
      "a map has positions that its prompts do not have",
    );
  ensure(frame.step === stepOf(length(frame.rows), length(frame.columns)), "a map has the wrong number of cells");
  return frame;
}

/** Whether a buffer has the values of one destination. The kernel sends such a buffer only with a whole map. */
const isRow = ({ what }: AttentionBuffer): boolean => what === "reads" || what === "brings";

/** The number of bytes that a map's buffer must have. */
function sizeOf({ wide, triangle }: AttentionBuffer, { rows, columns, step }: Frame): number {
  const [down, across] = [blocks(rows, step), blocks(columns, step)];
  ensure(
    !triangle || (down === across && within(rows, columns.start) && length(rows) === length(columns)),
    "a map has the wrong number of cells",
  );
  return (triangle ? (down * (down + 1)) / 2 : down * across) * (wide ? 4 : 2);
}

// --- helpers ---------------------------------------------------------------------------------------------------------
/** Whether the number of characters and values, and the nesting, are within the limits. Runs before any other check. */
function isSmall(value: unknown): boolean {
  let [letters, values] = [0, 0];
  let level: unknown[] = [value];
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth > MAX.depth) return false;
    const next: unknown[] = [];
    for (const item of level) {
      values += 1;
      if (typeof item === "string") {
        if (item.length > MAX.letters) return false;
        letters += item.length;
      } else if (Array.isArray(item)) {
        if (item.length > MAX.values) return false;
        for (const inner of item) next.push(inner);
      } else if (typeof item === "object" && item !== null) {
        for (const [name, inner] of Object.entries(item)) {
          letters += name.length;
          if (name === "buffers" && Array.isArray(inner) && inner.every((text) => typeof text === "string")) {
            values += inner.length;
            // Buffers hold numbers, so they may be longer than a text.
            letters += inner.reduce<number>((sum, text) => sum + (text as string).length, 0);
          } else next.push(inner);
        }
      }
      if (letters > MAX.characters || values + next.length > MAX.values) return false;
    }
    level = next;
  }
  return true;
}

function ensureCount(noun: string, count: number, least: number, most: number): void {
  ensure(
    Number.isInteger(count) && count >= least && count <= most,
    `it has ${count} ${noun}, and only ${least} to ${most} can be drawn`,
  );
}

function isIndex(index: number, count: number): boolean {
  return Number.isInteger(index) && index >= 0 && index < count;
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

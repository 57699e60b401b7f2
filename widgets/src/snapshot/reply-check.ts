// Checks one reply of a snapshot: whether it belongs to its request, and has as many values as names.
import type * as v from "valibot";
import { blocks, type Frame, frameOf, length, stepOf, within } from "../draw/plane";
import type { Ask } from "../wire/client";
import { isWhole } from "../wire/components";
import { isReplyTo } from "../wire/is-reply-to";
import type * as wire from "../wire/protocol.check.gen";
import type {
  AttentionBuffer,
  CacheFacts,
  ComponentTable,
  LensCell,
  PositionPair,
  SegmentLabel,
} from "../wire/protocol.gen";
import { ensure, ensureCount, isHead, isIndex, isPosition, type Size } from "./ensure";
import { MAX, maxOtherRows } from "./limits";
import type { RecordedKind } from "./requests";
import type { Entry } from "./snapshot";

export type Reply = NonNullable<Entry["reply"]>;

/** A request of one kind with its reply, and the byte count of each buffer. */
export type Replied = {
  [K in RecordedKind]: {
    kind: K;
    ask: v.InferOutput<(typeof wire.REQUESTS)[K]>;
    reply: v.InferOutput<(typeof wire.REPLIES)[K]>;
    bytes: number[];
  };
}[RecordedKind];

export function checkReply({ kind, ask, reply, bytes }: Replied, facts: CacheFacts): void {
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
          (reply.parallel ?? []).length <= reply.layers &&
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
      ensureAnswer(areAveraged(reply.prompts, ask.prompt ?? null, prompts));
      ensureMatch(rows > 0 && (ask.by !== "head" || rows >= cells) && reply.tolerance >= 0);
      const [values, std, perPrompt, constants] = bytes;
      ensureMatch(values === rows * 4 && (std === undefined || std === rows * 4));
      return ensureMatch(
        reply.per_prompt ? perPrompt === rows * prompts * 4 && constants === prompts * 4 : bytes.length <= 2,
      );
    }
    case "compare": {
      const rows = reply.components.kind.length;
      ensureAnswer(areAveraged(reply.prompts, ask.prompt ?? null, prompts));
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
      ensureAnswer(areAveraged(reply.prompts, ask.prompt ?? null, prompts));
      ensureMatch(reply.done >= 0 && reply.total >= 0);
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
      ensureAnswer(areAveraged(reply.prompts, ask.prompt ?? null, prompts));
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

/** Whether a reply can be about this many prompts: one, or those in the mean. Some may have padding at the position. */
const areAveraged = (count: number, prompt: number | null, prompts: number): boolean =>
  prompt === null ? isIndex(count - 1, prompts) : count === 1;

/** Whether a table of components is complete, and the model has their layers and heads. */
function areComponents(table: ComponentTable, { layers, heads }: Size): boolean {
  const isThere = (kind: number, row: number): boolean => {
    const [layer = null, index = null] = [table.layer[row], table.index[row]];
    const most = table.kinds[kind] === "head" ? heads : Infinity;
    return (layer === null || isIndex(layer, layers)) && (index === null || isIndex(index, most));
  };
  return isWhole(table) && table.kind.every(isThere);
}

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

// Checks a snapshot from outside, for example from a notebook's output: its types, counts and sizes, before anything is
// laid out. A snapshot that does not pass is not drawn at all, and a sentence says why.
import * as v from "valibot";
import { parseHead } from "../base/format";
import { blocks, type Frame, frameOf, length, stepOf, within } from "../draw/plane";
import { charts } from "../state/questions";
import { isTargetOf } from "../state/selectable";
import type { Position } from "../state/target";
import { NOTHING } from "../state/target";
import type { Ask } from "../wire/client";
import { isWhole } from "../wire/components";
import { fits as isReplyTo } from "../wire/fits";
import * as wire from "../wire/protocol.check.gen";
import type { AttentionBuffer, CacheFacts, Target } from "../wire/protocol.gen";
import { isRecorded, type RecordedKind } from "./requests";
import { chartOf, type Entry, keyOf, PINNED, type Snapshot } from "./snapshot";

export type Checked = { snapshot: Snapshot; trouble: null } | { snapshot: null; trouble: string };

/** Real models stay far below these limits, and a snapshot within them is drawn quickly. */
const MOST = {
  characters: 3_000_000,
  letters: 20_000,
  values: 400_000,
  depth: 12,
  entries: 1_000,
  contrasts: 4_096,
  notes: 50,
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
};
/** The most rows of a decomposition that are not heads: embeddings, each layer's sublayers and biases. */
const mostOtherRows = (layers: number): number => 8 * layers + 64;

const Outside = v.object({
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
    v.maxLength(MOST.entries),
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

class Refused extends Error {}
function ensure(holds: boolean, why: string): asserts holds {
  if (!holds) throw new Refused(why);
}

/** The snapshot, copied field by field; or the reason why it is not drawn. */
export function checkSnapshot(value: unknown): Checked {
  try {
    ensure(isSmall(value), "it is too large, or nested too deeply");
    return { snapshot: read(value), trouble: null };
  } catch (error) {
    if (error instanceof Refused) return { snapshot: null, trouble: error.message };
    if (error instanceof v.ValiError) return { snapshot: null, trouble: sentenceFor(error.issues[0]) };
    throw error;
  }
}

function read(value: unknown): Snapshot {
  const { name, selection, preview = null, saved, lacks = [], entries } = v.parse(Outside, value, { abortEarly: true });
  const replied = entries.flatMap(({ ask, reply, buffers }): (Replied & { entry: Entry })[] => {
    const { kind } = ask;
    if (!isRecorded(kind) || reply === undefined) return []; // only a kernel may send code, a page or predictions
    const { buffers: packed } = v.parse(Buffers, { buffers: buffers ?? [] }, { abortEarly: true });
    // Most entries are of the selection's target, which is checked once.
    const { target, ...about } = v.parse(
      wire.REQUESTS[kind],
      { ...ask, target: ask["target"] ?? NOTHING },
      { abortEarly: true },
    ) as { target?: Target } & Record<string, unknown>;
    const whole = target && ask["target"] !== undefined ? { ...about, target } : about;
    const checkedReply = v.parse(wire.REPLIES[kind], reply, { abortEarly: true });
    const one = { kind, ask: whole, reply: checkedReply, bytes: packed.map(byteLength) } as Replied;
    return [
      {
        ...one,
        entry: {
          ask: whole as Entry["ask"],
          reply: checkedReply as Reply,
          ...(packed.length > 0 ? { buffers: packed } : {}),
        },
      },
    ];
  });
  const [facts, ...otherFacts] = replied.flatMap((one) => (one.kind === "describe" ? [one.reply] : []));
  ensure(facts !== undefined && otherFacts.length === 0, "it does not describe its cache exactly once");
  checkFacts(facts);
  for (const one of replied) {
    checkReply(one, facts);
    if ("target" in one.ask) ensure(isTargetOf(one.ask.target, facts), OTHER_MODEL);
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

const OTHER_MODEL = "it has a target that its model does not have";

/** Whether this is a position of the prompts; “last” always is. */
const isPosition = (at: Position, positions: number): boolean => at === "last" || isIndex(at, positions);

// --- the facts, the selection and each reply -------------------------------------------------------------------------
function checkFacts({ layers, heads, prompts, positions, last }: CacheFacts): void {
  ensureCount("layers", layers, 1, MOST.layers);
  ensureCount("heads", heads, 0, MOST.heads);
  ensureCount("layers × heads", layers * heads, 0, MOST.cells);
  ensureCount("prompts", prompts, 1, MOST.prompts);
  ensureCount("positions", positions, 1, MOST.positions);
  ensure(
    last.length === prompts && last.every((at) => isIndex(at, positions)),
    "its last positions do not match its prompts",
  );
}

function checkSelection({ selection, preview }: Pick<Snapshot, "selection" | "preview">, shape: CacheFacts): void {
  const { layers, heads, prompts, positions } = shape;
  const { prompt = null, position = "last", layer = null, target, top_k = 5, heads: pinned = [] } = selection;
  const optional = (at: number | null, count: number): boolean => at === null || isIndex(at, count);
  const isHead = (name: string): boolean => {
    const at = parseHead(name);
    return at !== null && isIndex(at.layer, layers) && isIndex(at.head, heads);
  };
  ensure(
    optional(prompt, prompts) && isPosition(position, positions) && optional(layer, layers),
    "its selection is not in its cache",
  );
  ensureCount("contrasts", target.contrasts.length, target.direction || target.inner ? 0 : 1, MOST.contrasts);
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
  ensureCount("rows of the ranking", top_k, 1, MOST.topK);
  ensureCount("pinned heads", pinned.length, 0, MOST.pinned);
  ensure(
    [...pinned, ...(preview === null || preview === undefined ? [] : [preview])].every(isHead),
    "its model does not have all of the pinned heads",
  );
  ensure(new Set(pinned).size === pinned.length, "a head is pinned twice");
}

/** Requires that a reply fits its request, and has as many values as names. */
function checkReply({ kind, ask, reply, bytes }: Replied, facts: CacheFacts): void {
  const { layers, heads, prompts, positions } = facts;
  const cells = layers * heads;
  if ("notes" in reply) ensureCount(`notes in its “${kind}” entry`, reply.notes.length, 0, MOST.notes);
  if ("notes" in reply)
    ensure(
      reply.notes.every((note) => note.length <= MOST.note),
      `a note in its “${kind}” entry is too long`,
    );
  const matches = (holds: boolean, why = `its “${kind}” entry has values that do not match their names`): void =>
    ensure(holds, why);
  const answers = (holds: boolean): void => matches(holds, `its “${kind}” entry has the reply to another request`);
  if ("components" in reply) {
    ensureCount(`rows in its “${kind}” entry`, reply.components.kind.length, 0, cells + mostOtherRows(layers));
    matches(isWhole(reply.components) && reply.components.layer.every((at) => at === null || at < layers));
  }
  answers(isReplyTo(ask as Ask, reply as Reply));
  if ("prompt" in ask) answers(ask.prompt === null || ask.prompt === undefined || isIndex(ask.prompt, prompts));
  if ("position" in ask) answers(isPosition(ask.position ?? "last", positions));
  switch (kind) {
    case "describe":
      return matches(
        bytes.length === 0 &&
          reply.missing.length <= MOST.texts &&
          (reply.points === undefined || (isWhole(reply.points) && reply.points.kind.length <= MOST.texts * 4)),
      );
    case "tokens":
      return matches(
        reply.tokens.every(({ varies = [] }) => varies.length <= 32) &&
          reply.tokens.length === positions &&
          bytes.length === 0,
      );
    case "attribute": {
      const rows = reply.components.kind.length;
      answers(reply.prompts === (ask.prompt === null || ask.prompt === undefined ? prompts : 1));
      matches(rows > 0 && (ask.by !== "head" || rows >= cells) && reply.tolerance >= 0);
      const [own, std, each, constants] = bytes;
      matches(own === rows * 4 && (std === undefined || std === rows * 4));
      return matches(reply.per_prompt ? each === rows * prompts * 4 && constants === prompts * 4 : bytes.length <= 2);
    }
    case "attention": {
      answers(isIndex(ask.layer, layers) && isIndex(ask.head, heads) && reply.positions === positions);
      const frame = framed(reply, positions);
      matches(reply.parts.length === bytes.length);
      return reply.parts.forEach((part, i) =>
        matches(bytes[i] === (isRow(part) ? positions * 4 : sizeOf(part, frame))),
      );
    }
    case "blend": {
      answers((ask.layer === null || isIndex(ask.layer, layers)) && reply.positions === positions);
      return matches(
        bytes.length === 1 && !isRow(reply.part) && bytes[0] === sizeOf(reply.part, framed(reply, positions)),
      );
    }
    case "thumbnails":
      answers(isIndex(ask.layer, layers) && reply.positions === positions);
      ensureCount("cells per side of a thumbnail", reply.side, 1, MOST.side);
      return matches(reply.limits.length === heads && bytes.length === 1 && bytes[0] === heads * reply.side ** 2);
    case "scores":
      return matches(bytes.length === 1 && bytes[0] === cells * 4);
    case "positions":
      ensureCount("cells in its position map", reply.components.kind.length * positions, 0, MOST.mapped);
      answers(reply.positions === positions);
      return matches(
        bytes.length === 2 && bytes[0] === reply.components.kind.length * positions * 4 && bytes[1] === positions * 4,
      );
    case "token-lens": {
      answers(reply.start === ask.start);
      const columns = ask.stop - ask.start;
      return matches(
        isIndex(ask.start, positions) &&
          columns > 0 &&
          ask.stop <= positions &&
          bytes.length === 0 &&
          reply.cells.length === reply.points.length &&
          reply.cells.every(
            (row) =>
              row.length === columns &&
              row.every(({ tokens, probabilities }) => tokens.length === probabilities.length),
          ),
      );
    }
    case "neurons":
      return matches(
        bytes.length === 1 &&
          bytes[0] === reply.components.kind.length * 4 &&
          reply.components.kind.length <= 2 * MOST.topK,
      );
    case "pairs": {
      const [down, across] = [reply.query.kind.length, reply.key.kind.length];
      answers(down <= MOST.topK && across <= MOST.topK && isWhole(reply.query) && isWhole(reply.key));
      return matches(bytes.length === 1 && bytes[0] === (down + 1) * (across + 1) * 4);
    }
    case "head-tokens": {
      const lists = [reply.output_top, reply.output_bottom, reply.source_top, reply.source_bottom];
      answers(isIndex(ask.layer, layers) && isIndex(ask.head, heads));
      answers(reply.source === null || isIndex(reply.source, positions));
      return matches(bytes.length === 0 && lists.every((list) => list.length <= MOST.topK));
    }
    default:
      return kind satisfies never;
  }
}

/** The range of positions that a map covers. */
function framed(reply: Parameters<typeof frameOf>[0], positions: number): Frame {
  const frame = frameOf(reply);
  for (const span of [frame.rows, frame.columns])
    ensure(
      isIndex(span.start, positions) && span.start < span.stop && span.stop <= positions,
      "a map has positions that its prompts do not have",
    );
  ensure(frame.step === stepOf(length(frame.rows), length(frame.columns)), "a map has the wrong number of cells");
  return frame;
}

/** Whether a buffer is a row of the destination; it comes only with a whole map. */
const isRow = ({ what }: AttentionBuffer): boolean => what === "reads" || what === "brings";

/** The bytes of a map's buffer. */
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
    if (depth > MOST.depth) return false;
    const next: unknown[] = [];
    for (const one of level) {
      values += 1;
      if (typeof one === "string") {
        if (one.length > MOST.letters) return false;
        letters += one.length;
      } else if (Array.isArray(one)) {
        if (one.length > MOST.values) return false;
        for (const inner of one) next.push(inner);
      } else if (typeof one === "object" && one !== null) {
        for (const [name, inner] of Object.entries(one)) {
          letters += name.length;
          if (name === "buffers" && Array.isArray(inner) && inner.every((text) => typeof text === "string")) {
            values += inner.length;
            // Buffers hold numbers, so they may be longer than a text.
            letters += inner.reduce<number>((sum, text) => sum + (text as string).length, 0);
          } else next.push(inner);
        }
      }
      if (letters > MOST.characters || values + next.length > MOST.values) return false;
    }
    level = next;
  }
  return true;
}

function ensureCount(what: string, count: number, least: number, most: number): void {
  ensure(
    Number.isInteger(count) && count >= least && count <= most,
    `it has ${count} ${what}, and only ${least} to ${most} can be drawn`,
  );
}

function isIndex(at: number, count: number): boolean {
  return Number.isInteger(at) && at >= 0 && at < count;
}

function isBase64(text: string): boolean {
  return text.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(text);
}

function byteLength(base64: string): number {
  return (base64.length / 4) * 3 - (base64.endsWith("==") ? 2 : base64.endsWith("=") ? 1 : 0);
}

/** Says which field is wrong. It has only our names of fields, never a value from outside. */
function sentenceFor(issue: v.BaseIssue<unknown>): string {
  const path = issue.path
    ?.flatMap(({ key }) => (typeof key === "string" && /^\w{1,20}$/.test(key) ? [key] : []))
    .join(".");
  return path ? `its “${path}” is not valid` : "it is not a picture of a panel";
}

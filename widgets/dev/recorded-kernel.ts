// A fake kernel that replays Python's replies about the cache of a tiny model. `npm run record` writes them into
// recording.json. Replies about typed text, variables, code and pages are made up here. `Options` can change recorded
// replies.
import { type Entry, keyOf, type Snapshot, unpacked } from "../src/snapshot/snapshot";
import { isInside, isNext, targetKey } from "../src/state/target";
import type { Ask } from "../src/wire/client";
import { type Component, componentsOf } from "../src/wire/components";
import type { AttributionReply, Target, Token, Variable } from "../src/wire/protocol.gen";
import { columnsOf } from "./component-table";
import type { Kernel } from "./fake-model";
import recording from "./recording.json";

export const SHAPE = { layers: 3, heads: 2, positions: 6, prompts: 2 };
// TypeScript infers wider types from the JSON file than Python writes.
const RECORDING = recording as unknown as Snapshot;
const LAST = SHAPE.positions - 1;

/**
 * The key of a request. A target of logits is not part of it: the recorded values are the reply for every such target.
 * Targets inside the model, and those that differ between positions, have their own keys. If their reply was not
 * recorded, they get the reply for logits.
 */
function key(ask: Entry["ask"], isOfLogits = false): string {
  const { target, ...rest } = ask as Ask & { target?: Target };
  const about = "position" in rest && rest.position === LAST ? { ...rest, position: "last" } : rest;
  return (
    (!isOfLogits && target && (isInside(target) || isNext(target)) ? targetKey(target) : "") +
    keyOf(about as Entry["ask"], RECORDING)
  );
}
const ENTRIES = new Map(RECORDING.entries.map((entry) => [key(entry.ask), entry]));

type Outcome = ReturnType<Kernel>;

/** The recorded reply, with new buffers. */
export function recorded(ask: Entry["ask"]): Outcome {
  const entry = ENTRIES.get(key(ask)) ?? ENTRIES.get(key(ask, true));
  if (entry?.reply)
    return { reply: entry.reply, buffers: (entry.buffers ?? []).map((base64) => unpacked(base64).buffer) };
  return { failure: entry?.failure ?? { code: "not-recorded", message: `This request was not recorded: ${key(ask)}` } };
}

export function demoTarget(): Target {
  return {
    contrasts: [{ answer: [{ id: 1, text: " Mary" }], distractor: [{ id: 2, text: " John" }] }],
    direction: null,
  };
}

export interface Options {
  measured?: "agrees" | "misses" | "unknown";
  notes?: string[];
  /** Layers whose MLP is a mixture of experts. */
  experts?: number[];
  /** Layers without attention, which have a mixer instead. */
  mixers?: number[];
  /** False if the cache has no tokens, only positions. */
  tokens?: boolean;
  /** The variables of the notebook. */
  variables?: Variable[];
}

export function recordedKernel(options: Options = {}): Kernel {
  const { experts = [], tokens = true } = options;
  return (ask) => {
    const madeUpReply = madeUp(ask, options);
    if (madeUpReply) return madeUpReply;
    if (ask.kind === "neurons" && ask.layer != null && experts.includes(ask.layer))
      return {
        failure: {
          code: "no-neurons",
          message:
            `The MLP of layer ${ask.layer} cannot be split: it has no single W_out (as in a mixture of experts), ` +
            'so there are no neurons to list. Use `by="layer"`, where it is one row.',
        },
      };
    const outcome = recorded(ask);
    if ("failure" in outcome) return outcome;
    const { reply, buffers } = outcome;
    if (reply.kind === "describe") return { reply: { ...reply, has_tokens: tokens } };
    if (reply.kind === "tokens" && !tokens)
      return { reply: { ...reply, tokens: reply.tokens.map((_, i) => ({ text: String(i) })) } };
    return reply.kind === "attribute" ? attributed(reply, buffers ?? [], options) : outcome;
  };
}

/** A reply with the recorded values, changed as the options say. */
function attributed(
  reply: AttributionReply,
  buffers: ArrayBuffer[],
  { measured = "agrees", notes = [], mixers = [] }: Options,
): Outcome {
  const components = componentsOf(reply.components);
  const isMixed = ({ kind, layer }: Component): boolean =>
    layer !== null && mixers.includes(layer) && (kind === "head" || kind === "attn_out" || kind === "attn_bias");
  const rows = new Float32Array(buffers[0] ?? new ArrayBuffer(0));
  const sums = new Map<number | null, number>();
  components.forEach((row, i) => {
    const { kind, layer } = row;
    if (!isMixed(row)) return;
    sums.set(layer, (sums.get(layer) ?? 0) + (rows[i] ?? 0));
    if (kind === "head") rows[i] = NaN;
    else rows[i] = sums.get(layer) ?? 0; // a sublayer comes after its heads, and gets their sum
  });
  const labels = components.map((row) => (isMixed(row) && row.kind !== "head" ? `${row.layer}_mixer_out` : row.label));
  const missed = measured === "misses" ? { unexplained: -0.42, worst: -0.42 } : {};
  const unknown = {
    measured: null,
    worst: null,
    measured_from: "nothing: the cache holds neither logits nor the final residual stream; pass `logits=`",
  };
  const check = measured === "unknown" ? unknown : missed;
  const shifted = measured === "misses" && reply.measured !== null ? { measured: reply.measured - 0.42 } : {};
  return { reply: { ...reply, components: columnsOf(labels), ...check, ...shifted, notes }, buffers };
}

const WORDS = [" When", " John", " and", " Mary", " went", " to", " the", " shops", " gave", " a", " drink"];

/** Replies that are not recorded, because they depend on typed text or on the notebook. */
function madeUp(ask: Ask, { variables = [] }: Options): Outcome | null {
  const token = (text: string): Token => ({
    id: WORDS.includes(text) ? WORDS.indexOf(text) + 100 : text.length * 7919,
    text,
  });
  switch (ask.kind) {
    case "presence":
    case "give-up":
      return { reply: { kind: ask.kind } };
    case "target":
      return { reply: { kind: "target", target: demoTarget() } };
    case "caches":
      return { reply: { kind: "caches", kernel: "recorded", caches: [], notes: [] } };
    case "answers":
      return { reply: { kind: "answers", variables, panel: null, notes: [] } };
    case "check": {
      const single = WORDS.includes(ask.text);
      return {
        reply: {
          kind: "check",
          text: ask.text,
          single,
          tokens: single ? [token(ask.text)] : [...ask.text].map((c) => token(c)),
          message: single ? "" : `“${ask.text}” is ${ask.text.length} tokens.`,
          suggestions: WORDS.includes(` ${ask.text}`) ? [token(` ${ask.text}`)] : [],
        },
      };
    }
    case "resolve":
      if (ask.name === "prompts")
        return {
          failure: {
            code: "several-tokens",
            message: "“When·John” is 2 tokens in this model: “When” + “·John”. A target is a single token; try “When”.",
          },
        };
      return {
        reply: {
          kind: "resolve",
          name: ask.name ?? null,
          target:
            ask.name === "direction"
              ? { contrasts: [], direction: "direction-1", own: false }
              : { contrasts: [{ answer: [token(" Amy")], distractor: [token(" Tom")] }], direction: null, own: false },
          notes: ask.name === "names" ? ["This model's tokenizer reads “amy” as “·Amy”: that token is used."] : [],
        },
      };
    case "code":
      return { reply: { kind: "code", code: `# ${ask.picture}\nimport residscope\n` } };
    case "page":
      return {
        reply: { kind: "page", name: "residscope.html" },
        buffers: [new TextEncoder().encode("<!doctype html><title>saved</title>").buffer as ArrayBuffer],
      };
    default:
      return null;
  }
}

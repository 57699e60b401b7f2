// A kernel that makes its numbers up: any shape, always the same for the same shape, rows that add up.
import { stepOf } from "../src/draw/plane";
import type { Target, Token, TokenLabel, Variable } from "../src/wire/protocol.gen";
import { columnsOf } from "./component-table";
import { downSampled } from "./down-sampled";
import type { Kernel } from "./fake-model";
import { neuronsReply } from "./made-up-neurons";
import { madeUp } from "./made-up-views";

export interface Shape {
  layers: number;
  heads: number;
  positions: number;
  prompts: number;
}

const WORDS =
  " When John and Mary went to the shops , Martha gave a drink of <img/src=x> \n water".match(/ ?\S+|\n/g) ?? [];

export function random(seed: number): () => number {
  let s = seed >>> 0 || 1;
  return () => {
    s = (s + 0x6d2b79f5) >>> 0;
    let t = Math.imul(s ^ (s >>> 15), 1 | s);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export function toHalf(value: number): number {
  if (value < 0) return 0x8000 | toHalf(-value);
  if (value === 0) return 0;
  const exponent = Math.floor(Math.log2(value));
  if (exponent < -14) return Math.round(value * 2 ** 24);
  return ((exponent + 15) << 10) + Math.round((value / 2 ** exponent - 1) * 1024);
}

/** Of numbers at most 1. */
function fromHalf(word: number): number {
  const exponent = (word >> 10) & 31;
  const fraction = word & 1023;
  return exponent === 0 ? fraction / 2 ** 24 : (1 + fraction / 1024) * 2 ** (exponent - 15);
}

const floats = (values: number[]): ArrayBuffer => new Float32Array(values).buffer as ArrayBuffer;
const sum = (values: number[]): number => values.reduce((a, b) => a + b, 0);

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
  /** False: the cache holds positions only. */
  tokens?: boolean;
  /** What lies in the notebook. */
  variables?: Variable[];
}

export function fakeKernel(shape: Shape, options: Options = {}): Kernel {
  const { notes = [], experts = [], mixers = [] } = options;
  const { layers, heads, positions, prompts } = shape;
  const vocabulary = new Map<string, Token>(WORDS.map((text, id) => [text, { id: id + 100, text }]));
  const token = (text: string): Token => vocabulary.get(text) ?? { id: text.length * 7919, text };

  function components(seed: number): { heads: number[]; bias: number[]; mlp: number[]; embed: number } {
    const next = random(seed);
    const bell = (): number => next() + next() + next() - 1.5;
    const values = Array.from({ length: layers * heads }, (_, i) => {
      const depth = Math.floor(i / heads) / layers;
      return bell() * (0.04 + 0.25 * depth ** 3) + (next() > 0.985 ? bell() * 3 * depth : 0);
    });
    return {
      heads: values,
      bias: Array.from({ length: layers }, () => bell() * 0.01),
      mlp: Array.from({ length: layers }, (_, i) => bell() * (0.1 + (i / layers) ** 3)),
      embed: bell() * 0.1,
    };
  }

  const patterns = new Map<string, ReturnType<typeof made>>();
  function made(next: () => number): { pattern: Uint16Array<ArrayBuffer>; lastRow: number[] } {
    const pattern = new Uint16Array(positions * positions);
    const reach = next() * 4;
    let lastRow: number[] = [];
    for (let q = 0; q < positions; q += 1) {
      const weights = Array.from({ length: q + 1 }, (_, k) =>
        k === 0 ? 2 + next() : next() ** (2 + reach) * (k === q ? 2 : 1),
      );
      const all = sum(weights);
      lastRow = weights.map((w) => w / all);
      lastRow.forEach((w, k) => (pattern[q * positions + k] = toHalf(w)));
    }
    return { pattern, lastRow };
  }

  return (ask): ReturnType<Kernel> => {
    if (ask.kind === "describe")
      return {
        reply: {
          kind: "describe",
          name: "cache",
          model: "made-up",
          layers,
          heads,
          prompts,
          positions,
          dtype: "float32",
          device: "cpu",
          bytes: 41_300_000,
          missing: [],
          last: Array<number>(prompts).fill(positions - 1),
          has_tokens: options.tokens ?? true,
        },
      };
    if (ask.kind === "tokens") {
      const tokens: TokenLabel[] = Array.from({ length: positions }, (_, i) => {
        if (options.tokens === false) return { text: String(i) };
        const text = i === 0 ? "<|im_start|>" : (WORDS[(i - 1) % WORDS.length] ?? "?");
        if ((ask.prompt ?? null) === null && prompts > 1 && i % 5 === 2)
          return { text: "", varies: [text, " Amy", " Tom"] };
        return { text, id: i, varies: [], padding: false };
      });
      return { reply: { kind: "tokens", tokens } };
    }
    if (ask.kind === "suggest")
      return {
        reply: {
          kind: "suggest",
          predictions: WORDS.slice(0, ask.k ?? 8).map((text, i) => ({
            token: token(text),
            probability: 0.45 / (i + 1) ** 1.6,
          })),
        },
      };
    if (ask.kind === "check") {
      const single = vocabulary.has(ask.text);
      return {
        reply: {
          kind: "check",
          text: ask.text,
          single,
          tokens: single ? [token(ask.text)] : [...ask.text].map((c) => token(c)),
          message: single ? "" : `“${ask.text}” is ${ask.text.length} tokens.`,
          suggestions: vocabulary.has(` ${ask.text}`) ? [token(` ${ask.text}`)] : [],
        },
      };
    }
    if (ask.kind === "presence") return { reply: { kind: "presence" } };
    if (ask.kind === "target") return { reply: { kind: "target", target: demoTarget() } };
    if (ask.kind === "answers")
      return { reply: { kind: "answers", variables: options.variables ?? [], panel: null, notes: [] } };
    if (ask.kind === "resolve") {
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
          notes: ask.name === "names" ? ["This model's tokenizer reads “amy” as “·Amy”: that token is taken."] : [],
        },
      };
    }
    if (ask.kind === "caches") return { failure: { code: "protocol", message: "An inline panel lists no caches." } };
    if (ask.kind !== "attribute" && ask.kind !== "neurons" && ask.kind !== "attention") return madeUp(ask, shape);
    const seed =
      (ask.prompt ?? 77) * 31 +
      (typeof ask.position === "number" ? ask.position : 5) * 7 +
      (ask.target.contrasts[0]?.answer[0]?.id ?? 0);
    const parts = components(seed);
    if (ask.kind === "attribute") {
      const constant = 0.25;
      const several = ask.prompt == null && prompts > 1;
      const spread = Array.from({ length: prompts }, (_, i) => (prompts > 1 ? (2 * i) / (prompts - 1) - 1 : 0));
      const attn = parts.bias.map((b, l) => b + sum(parts.heads.slice(l * heads, (l + 1) * heads)));
      const rows: [string, number][] = [];
      if (ask.by === "head") {
        parts.heads.forEach((v, i) =>
          rows.push([`L${Math.floor(i / heads)}H${i % heads}`, mixers.includes(Math.floor(i / heads)) ? NaN : v]),
        );
        parts.bias.forEach((v, l) =>
          rows.push(mixers.includes(l) ? [`${l}_mixer_out`, attn[l] ?? 0] : [`${l}_attn_bias`, v]),
        );
        parts.mlp.forEach((v, l) => rows.push([`${l}_mlp_out`, v]));
        rows.push(["embed", parts.embed]);
      } else if (ask.by === "layer") {
        rows.push(["embed", parts.embed]);
        attn.forEach((v, l) =>
          rows.push([mixers.includes(l) ? `${l}_mixer_out` : `${l}_attn_out`, v], [`${l}_mlp_out`, parts.mlp[l] ?? 0]),
        );
      } else {
        let run = parts.embed;
        attn.forEach((v, l) => {
          rows.push([`${l}_pre`, run], [`${l}_mid`, run + v]);
          run += v + (parts.mlp[l] ?? 0);
        });
        rows.push(["final_post", run]);
        if (ask.norm === "recomputed") rows.forEach((row, i) => (row[1] *= 2.2 - (1.2 * i) / (rows.length - 1)));
      }
      const total = parts.embed + sum(attn) + sum(parts.mlp) + constant;
      const unexplained = options.measured === "misses" ? -0.42 : 1e-6;
      return {
        reply: {
          kind: "attribute",
          by: ask.by,
          components: columnsOf(rows.map(([label]) => label)),
          constant,
          unexplained,
          measured: options.measured === "unknown" ? null : total + unexplained,
          worst: options.measured === "unknown" ? null : unexplained,
          tolerance: 1e-3,
          own: true,
          measured_from:
            options.measured === "unknown"
              ? "nothing: the cache holds neither logits nor the final residual stream; pass `logits=`"
              : "the logits in the cache (unembed.hook_out)",
          prompts: ask.prompt == null ? prompts : 1,
          notes,
          per_prompt: several,
        },
        buffers: [
          floats(rows.map(([, v]) => v)),
          ...(several
            ? [
                floats(rows.map(([, v]) => Math.abs(v) * 0.3)),
                floats(rows.flatMap(([, v]) => spread.map((s) => v * (1 + 0.5 * s)))),
                floats(spread.map(() => constant)),
              ]
            : []),
        ],
      };
    }
    if (ask.kind === "neurons") {
      if (ask.layer != null && experts.includes(ask.layer))
        return {
          failure: {
            code: "no-neurons",
            message: `The MLP of layer ${ask.layer} cannot be split: it has no single W_out (as in a mixture of experts), so there are no neurons to list. \`by="layer"\` has it as a whole.`,
          },
        };
      return neuronsReply(ask, parts.mlp, 0.11);
    }
    const next = random(seed + ask.layer * 1009 + ask.head * 9176);
    const name = `${seed} ${ask.layer} ${ask.head}`;
    const { pattern, lastRow } = patterns.get(name) ?? made(next);
    patterns.set(name, { pattern, lastRow });
    const share = parts.heads[ask.layer * heads + ask.head] ?? 0;
    const worth = Array.from({ length: positions }, (_, k) => share * (k === 0 ? 0.1 : k % 3 === 1 ? -0.8 : 1.6));
    const maps = [
      { what: "contribution" as const, weight: worth },
      { what: "value" as const, weight: worth.map((w) => 1 + Math.abs(w)) },
    ]
      .filter(({ what }) => what === ask.weighting || what === "contribution")
      .map(({ what, weight }) => {
        const scale = Math.max(1e-9, ...weight.map(Math.abs));
        return {
          part: { what, scale },
          buffer: Uint16Array.from(pattern, (word, at) =>
            toHalf(fromHalf(word) * ((weight[at % positions] ?? 0) / scale)),
          ).buffer as ArrayBuffer,
        };
      });
    if (ask.rows || ask.columns || stepOf(positions, positions) > 1) {
      const whole = Float32Array.from(pattern, fromHalf);
      const wanted = [
        ["pattern", whole] as const,
        ...(ask.weighting === "pattern"
          ? []
          : [[ask.weighting ?? "pattern", whole.map((w, at) => w * (worth[at % positions] ?? 0))] as const]),
      ];
      const sent = wanted.map(([what, values]) => ({ what, ...downSampled(positions, values, ask) }));
      const { rows, columns, step } = sent[0] ?? { rows: null, columns: null, step: 1 };
      const rowsOfIt =
        ask.rows || ask.columns ? [] : [floats(lastRow), floats(lastRow.map((w, k) => w * (worth[k] ?? 0)))];
      return {
        reply: {
          kind: "attention",
          layer: ask.layer,
          head: ask.head,
          positions,
          rows,
          columns,
          step,
          notes: [],
          parts: [
            ...sent.map(({ what }) => ({ what, wide: true })),
            ...(rowsOfIt.length > 0 ? [{ what: "reads" as const }, { what: "brings" as const }] : []),
          ],
        },
        buffers: [...sent.map(({ values }) => values.buffer as ArrayBuffer), ...rowsOfIt],
      };
    }
    return {
      reply: {
        kind: "attention",
        layer: ask.layer,
        head: ask.head,
        positions,
        parts: [{ what: "pattern" }, { what: "reads" }, { what: "brings" }, ...maps.map(({ part }) => part)],
        notes: [],
      },
      buffers: [
        pattern.slice().buffer,
        floats(lastRow),
        floats(lastRow.map((w, k) => w * (worth[k] ?? 0))),
        ...maps.map(({ buffer }) => buffer),
      ],
    };
  };
}

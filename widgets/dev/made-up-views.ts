// Made-up answers for the views below the charts, the head scores and the exports.
import type { Ask } from "../src/wire/client";
import type { LensCell } from "../src/wire/protocol.gen";
import { columnsOf } from "./component-table";
import { downSampled } from "./down-sampled";
import { random, type Shape, toHalf } from "./fake-kernel";
import type { Kernel } from "./fake-model";

const TOKENS = [" Mary", " John", " the", "\n", "<img src=x onerror=alert(1)>", " שלום", "🙂"];
const floats = (values: number[]): ArrayBuffer => new Float32Array(values).buffer as ArrayBuffer;

export function madeUp(ask: Ask, { layers, heads, positions }: Shape): ReturnType<Kernel> {
  switch (ask.kind) {
    case "thumbnails": {
      const side = Math.min(ask.side ?? 32, positions);
      const next = random(ask.layer + 1);
      const signed = ask.weighting === "contribution";
      const cells = Int8Array.from({ length: heads * side * side }, (_, at) => {
        const [q, k] = [Math.floor(at / side) % side, at % side];
        return k > q ? 0 : Math.round(127 * next() ** 3) * (signed && at % 2 ? -1 : 1);
      });
      return {
        reply: {
          kind: "thumbnails",
          layer: ask.layer,
          side,
          positions,
          limits: Array.from({ length: heads }, (_, h) => (h + 1) / heads),
          notes: [],
        },
        buffers: [cells.buffer as ArrayBuffer],
      };
    }
    case "blend": {
      const map = new Uint16Array(positions * positions);
      for (let q = 0; q < positions; q += 1)
        for (let k = 0; k <= q; k += 1) map[q * positions + k] = toHalf(1 / (q + 1));
      if (ask.rows || ask.columns) {
        const { values, ...frame } = downSampled(
          positions,
          Float32Array.from({ length: positions * positions }, (_, i) =>
            i % positions > Math.floor(i / positions) ? 0 : 1 / (Math.floor(i / positions) + 1),
          ),
          ask,
        );
        return {
          reply: { kind: "blend", positions, heads, part: { what: "pattern", wide: true }, notes: [], ...frame },
          buffers: [values.buffer as ArrayBuffer],
        };
      }
      return {
        reply: {
          kind: "blend",
          positions,
          heads: ask.layer === null ? layers * heads : heads,
          part: { what: ask.weighting ?? "pattern" },
          notes: [],
        },
        buffers: [map.buffer as ArrayBuffer],
      };
    }
    case "scores": {
      const next = random(ask.score.length);
      const low = ask.score === "copying" ? -1 : 0;
      return {
        reply: {
          kind: "scores",
          score: ask.score,
          meaning: `How much a head is of the kind “${ask.score}”.`,
          low,
          high: 1,
          notes: [],
        },
        buffers: [floats(Array.from({ length: layers * heads }, () => low + (1 - low) * next() ** 2))],
      };
    }
    case "positions": {
      const labels =
        ask.by === "head"
          ? (ask.heads ?? [])
          : Array.from({ length: layers }, (_, l) =>
              ask.by === "layer" ? [`${l}_attn_out`, `${l}_mlp_out`] : [`${l}_pre`, `${l}_mid`],
            ).flat();
      const next = random(labels.length + 3);
      return {
        reply: { kind: "positions", by: ask.by, components: columnsOf(labels), positions, notes: [] },
        buffers: [
          floats(labels.flatMap(() => Array.from({ length: positions }, () => (next() - 0.5) * 2))),
          floats(Array.from({ length: positions }, () => next() * 4)),
        ],
      };
    }
    case "token-lens": {
      const cell = (name: string, at: number): LensCell => {
        const point = name === "final_post" ? layers : parseInt(name, 10);
        const sure = ((point * 5 + at * 3) % 11) / 12 + 0.05;
        return {
          tokens: TOKENS.slice(0, ask.k ?? 5).map((_, i) => TOKENS[(i + point + at) % TOKENS.length] ?? "?"),
          probabilities: TOKENS.slice(0, ask.k ?? 5).map((_, i) => sure / (i + 1) ** 2),
          answer: 0.01 * (point + 1),
          rank: Math.max(1, 2 * layers - 2 * point + (at % 4)),
        };
      };
      return {
        reply: {
          kind: "token-lens",
          points: ask.points,
          start: ask.start,
          cells: ask.points.map((point) =>
            Array.from({ length: ask.stop - ask.start }, (_, i) => cell(point, ask.start + i)),
          ),
          notes: [],
        },
      };
    }
    case "code":
      return { reply: { kind: "code", code: `# ${ask.picture}\nimport residscope\n` } };
    case "page":
      return {
        reply: { kind: "page", name: "residscope.html" },
        buffers: [new TextEncoder().encode("<!doctype html><title>saved</title>").buffer as ArrayBuffer],
      };
    default:
      return { failure: { code: "protocol", message: `No made-up answer for ${ask.kind}.` } };
  }
}

// A fake kernel with replies of a larger shape: it repeats the recorded values. For tests of size, not of values.
import { blocks, everything, type Frame, type Span, stepOf } from "../src/draw/plane";
import { componentsOf } from "../src/wire/components";
import type { AttentionBuffer, TokenLabel } from "../src/wire/protocol.gen";
import { columnsOf } from "./component-table";
import type { Kernel } from "./fake-model";
import { recorded, recordedKernel, SHAPE } from "./recorded-kernel";

type Shape = typeof SHAPE;
type Reply<K extends string> = Extract<
  NonNullable<Extract<ReturnType<Kernel>, { reply: unknown }>["reply"]>,
  { kind: K }
>;

const floats = (values: ArrayLike<number>): ArrayBuffer => Float32Array.from(values).buffer;
const sum = (values: number[]): number => values.reduce((a, b) => a + b, 0);
const repeat = <T>(count: number, make: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => make(i));

function answer<K extends Reply<string>["kind"]>(ask: Parameters<typeof recorded>[0] & { kind: K }) {
  const outcome = recorded(ask);
  if ("failure" in outcome) throw new Error(outcome.failure.message);
  return { reply: outcome.reply as Reply<K>, rows: new Float32Array(outcome.buffers?.[0] ?? new ArrayBuffer(0)) };
}

export function enlargedKernel({ layers, heads, positions, prompts }: Shape): Kernel {
  const small = recordedKernel();
  const target = { contrasts: [] };
  const { reply: head, rows: values } = answer({ kind: "attribute", by: "head", target, prompt: 0 });
  const labels = componentsOf(head.components).map(({ label }) => label);
  /** The value of a row. Layers and heads beyond the recorded ones have the values of the recorded ones. */
  const value = (label: string): number =>
    values[
      labels.indexOf(
        label.replace(/\d+/g, (n, offset) => String(Number(n) % (offset > 1 ? SHAPE.heads : SHAPE.layers))),
      )
    ] ?? 0;
  const layerRows = repeat(layers, (l) => ({
    heads: repeat(heads, (h): [string, number] => [`L${l}H${h}`, value(`L${l}H${h}`)]),
    bias: [`${l}_attn_bias`, value(`${l}_attn_bias`)] as [string, number],
    mlp: [`${l}_mlp_out`, value(`${l}_mlp_out`)] as [string, number],
  }));
  const attention = layerRows.map((layer) => sum([...layer.heads, layer.bias].map(([, v]) => v)));
  const embed: [string, number] = ["embed", value("embed")];
  const total = embed[1] + sum(attention) + sum(layerRows.map(({ mlp }) => mlp[1]));

  function rowsOf(by: string): [string, number][] {
    const mlps = layerRows.map(({ mlp }) => mlp);
    if (by === "head") return [...layerRows.flatMap((l) => l.heads), ...layerRows.map((l) => l.bias), ...mlps, embed];
    if (by === "layer")
      return [embed, ...mlps.flatMap((mlp, l): [string, number][] => [[`${l}_attn_out`, attention[l] ?? 0], mlp])];
    let stream = embed[1];
    const points = layerRows.flatMap(({ mlp }, l): [string, number][] => {
      const before = stream;
      const mid = before + (attention[l] ?? 0);
      stream = mid + mlp[1];
      return [
        [`${l}_pre`, before],
        [`${l}_mid`, mid],
      ];
    });
    return [...points, ["final_post", stream]];
  }

  /** Each token attends equally to itself and all tokens before it. */
  const even = Float32Array.from({ length: positions ** 2 }, (_, i) =>
    i % positions > Math.floor(i / positions) ? 0 : 1 / (Math.floor(i / positions) + 1),
  );
  const last = even.subarray((positions - 1) * positions);

  return (ask) => {
    switch (ask.kind) {
      case "describe":
        return {
          reply: {
            ...answer({ kind: "describe" }).reply,
            ...{ layers, heads, prompts, positions, last: repeat(prompts, () => positions - 1) },
            points: columnsOf(rowsOf("accumulated").map(([label]) => label)),
          },
        };
      case "tokens": {
        const { tokens } = answer({ kind: "tokens", prompt: 0 }).reply;
        return { reply: { kind: "tokens", tokens: repeat(positions, (i) => tokens[i % tokens.length] as TokenLabel) } };
      }
      case "attribute": {
        const rows = rowsOf(ask.by);
        const isMean = ask.prompt == null && prompts > 1;
        const spread = repeat(prompts, (i) => 1 + (prompts > 1 ? i / (prompts - 1) - 0.5 : 0));
        const measured = total + head.constant;
        return {
          reply: {
            ...{
              ...head,
              by: ask.by,
              components: columnsOf(rows.map(([label]) => label)),
              measured,
              per_prompt: isMean,
            },
            ...{ unexplained: 0, worst: 0, prompts: ask.prompt == null ? prompts : 1 },
          },
          buffers: [
            rows.map(([, v]) => v),
            ...(isMean
              ? [
                  rows.map(([, v]) => Math.abs(v) * 0.3),
                  rows.flatMap(([, v]) => spread.map((s) => v * s)),
                  spread.map(() => head.constant),
                ]
              : []),
          ].map(floats),
        };
      }
      case "attention":
      case "blend": {
        const isWhole = !ask.rows && !ask.columns;
        const { values: map, ...frame } = downSampled(positions, even, ask);
        const part = (what: AttentionBuffer["what"]): AttentionBuffer => ({ what, wide: true });
        if (ask.kind === "blend")
          return {
            reply: { kind: "blend", positions, heads, part: part(ask.weighting ?? "pattern"), notes: [], ...frame },
            buffers: [map.buffer],
          };
        const more: AttentionBuffer[] = ask.weighting && ask.weighting !== "pattern" ? [part(ask.weighting)] : [];
        const rowBuffers: AttentionBuffer[] = isWhole ? [{ what: "reads" }, { what: "brings" }] : [];
        return {
          reply: {
            ...{ kind: "attention", layer: ask.layer, head: ask.head, positions, notes: [], ...frame },
            parts: [part("pattern"), ...more, ...rowBuffers],
          },
          buffers: [map.buffer, ...more.map(() => map.slice().buffer), ...rowBuffers.map(() => floats(last))],
        };
      }
      case "token-lens": {
        const recordedLens = answer({
          kind: "token-lens",
          points: ["2_pre", "2_mid", "final_post"],
          start: 0,
          stop: 6,
          target,
          k: 10,
          prompt: 0,
          norm: "recomputed",
        });
        const cells = recordedLens.reply.cells.flat();
        return {
          reply: {
            ...{ kind: "token-lens", points: ask.points, start: ask.start, notes: [] },
            cells: ask.points.map((_, row) =>
              repeat(
                ask.stop - ask.start,
                (i) => cells[(5 * row + 3 * i) % cells.length] ?? { tokens: [], probabilities: [] },
              ),
            ),
          },
        };
      }
      default:
        return small(ask);
    }
  };
}

interface Wanted {
  rows?: Span | null;
  columns?: Span | null;
  pool?: "peak" | "mean";
}

/** A simple version of the kernel's down-sampling of a long prompt's map. */
export function downSampled(
  size: number,
  values: Float32Array,
  { rows, columns, pool = "peak" }: Wanted,
): Frame & { values: Float32Array<ArrayBuffer> } {
  const all = everything(size);
  const [down, across] = [rows ?? all.rows, columns ?? all.columns];
  const step = stepOf(down.stop - down.start, across.stop - across.start);
  const [height, width] = [blocks(down, step), blocks(across, step)];
  const out = repeat(height * width, (i) => {
    const [top, left] = [down.start + Math.floor(i / width) * step, across.start + (i % width) * step];
    const cells: number[] = [];
    for (let q = top; q < Math.min(down.stop, top + step); q += 1)
      for (let k = left; k < Math.min(across.stop, left + step); k += 1) cells.push(values[q * size + k] ?? 0);
    if (pool === "mean") return sum(cells) / cells.length;
    return cells.reduce((most, cell) => (Math.abs(cell) > Math.abs(most) ? cell : most), 0);
  });
  return { rows: down, columns: across, step, values: Float32Array.from(out) };
}

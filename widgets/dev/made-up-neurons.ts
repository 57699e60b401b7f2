// Neurons of MLPs whose worth is given: numbers made up so that they add up to it.
import type { RankNeurons } from "../src/wire/protocol.gen";
import { columnsOf } from "./component-table";
import type { Kernel } from "./fake-model";

export const WIDTH = 1536;

/** The layer's neurons; with `bias` they add up to `worth`. */
function layerOf(layer: number, worth: number, bias: number): { name: string; value: number }[] {
  let seed = layer * 7919 + 1;
  const next = (): number => (seed = (seed * 16807) % 2147483647) / 2147483647 - 0.5;
  const values = Array.from({ length: WIDTH }, () => {
    const at = next();
    return (0.004 * (0.2 + Math.abs(worth)) * at) / (0.503 - Math.abs(at));
  });
  const off = (worth - bias - values.reduce((a, b) => a + b, 0)) / WIDTH;
  return values.map((value, neuron) => ({ name: `L${layer}N${neuron}`, value: value + off }));
}

export function neuronsReply(ask: RankNeurons, mlps: number[], bias: number): ReturnType<Kernel> {
  const { layer = null, k = 5 } = ask;
  const wanted = layer === null ? mlps.map((_, l) => l) : [layer];
  const all = wanted.flatMap((l) => layerOf(l, mlps[l] ?? 0, bias)).sort((a, b) => b.value - a.value);
  const chosen = [
    ...all.slice(0, k).filter((n) => n.value > 0),
    ...all
      .slice(-k)
      .reverse()
      .filter((n) => n.value < 0),
  ];
  return {
    reply: {
      kind: "neurons",
      components: columnsOf(chosen.map((n) => n.name)),
      count: all.length,
      layers: wanted.length,
      total: all.reduce((a, n) => a + n.value, 0),
      bias: bias * wanted.length,
      notes: [],
    },
    buffers: [new Float32Array(chosen.map((n) => n.value)).buffer as ArrayBuffer],
  };
}

// Turns labels such as "L0H1" or "0_attn_out" into a component table, for made-up replies.
import { type Component, componentsOf } from "../src/wire/components";
import type { ComponentTable } from "../src/wire/protocol.gen";

type Kind = ComponentTable["kinds"][number];

export const rowsOf = (...labels: string[]): readonly Component[] => componentsOf(columnsOf(labels));

export function componentOf(label: string): Component {
  const [row] = rowsOf(label);
  if (!row) throw new Error(label);
  return row;
}

export function columnsOf(labels: readonly string[]): ComponentTable {
  const rows = labels.map((label): [Kind, number | null, number | null] => {
    const match = /^L(\d+)([HN])(\d+)$/.exec(label);
    if (match) return [match[2] === "H" ? "head" : "neuron", Number(match[1]), Number(match[3])];
    const feature = /^F(\d+)$/.exec(label);
    if (feature) return ["feature", null, Number(feature[1])];
    const [, layer, kind = label] = /^(\d+)_(.+)$/.exec(label) ?? [];
    return [kind as Kind, layer === undefined ? null : Number(layer), null];
  });
  const kinds = [...new Set(rows.map(([kind]) => kind))];
  return {
    kinds,
    kind: rows.map(([kind]) => kinds.indexOf(kind)),
    layer: rows.map(([, layer]) => layer),
    index: rows.map(([, , index]) => index),
  };
}

// The components of a reply's rows. A reply has one column each for their kinds, layers and indices. A label is derived
// from these three, and is never parsed.

import { legible } from "../base/legible";
import type { ComponentTable } from "./protocol.gen";

export type ComponentKind = ComponentTable["kinds"][number];

export interface Component {
  readonly kind: ComponentKind;
  readonly layer: number | null;
  readonly index: number | null;
  /** "L0H0", "L0N0", "F0", "0_attn_out", "0_pre", "embed"; a source by its position. */
  readonly label: string;
}

/** The short names of the sublayers, for places with little room. */
export const SUBLAYERS: Partial<Record<ComponentKind, string>> = {
  attn_out: "attn",
  mlp_out: "mlp",
  mixer_out: "mixer",
  per_layer_out: "per_layer",
  layer_out: "layer",
};
const LETTERS: Partial<Record<ComponentKind, string>> = { head: "H", neuron: "N" };

/** The label of a component, the same as `Component.label` in Python. */
export function labelOf({ kind, layer, index }: Omit<Component, "label">): string {
  const letter = LETTERS[kind];
  if (letter) return `L${layer}${letter}${index}`;
  if (kind === "source") return String(index);
  if (kind === "feature") return `F${index}`;
  return layer === null ? kind : `${layer}_${kind}`;
}

/** The short label, such as "0_attn", for places with little room. */
export function shortLabelOf({ kind, layer, label }: Component): string {
  if (kind === "final_post") return "final";
  const part = SUBLAYERS[kind];
  return part ? `${layer}_${part}` : label;
}

const known = new WeakMap<ComponentTable, readonly Component[]>();

/** The rows of a reply, created once. Labels are made safe to show, because the kernel may send any text. */
export function componentsOf(table: ComponentTable | null | undefined): readonly Component[] {
  if (!table) return [];
  const found = known.get(table);
  if (found) return found;
  const rows = table.kind.map((at, i): Component => {
    // SAFETY: a kind that is missing in the table is written as "?" in the label.
    const kind = table.kinds[at] ?? ("?" as ComponentKind);
    const row = { kind, layer: table.layer[i] ?? null, index: table.index[i] ?? null };
    return { ...row, label: legible(labelOf(row)) };
  });
  known.set(table, rows);
  return rows;
}

const WITHOUT_LAYER: ReadonlySet<ComponentKind> = new Set([
  "embed",
  "pos_embed",
  "final_post",
  "source",
  "position_bias",
  "soft_cap",
  "biases",
  "feature",
  "error",
  "b_dec",
  "skip",
  "other_features",
]);
const WITH_INDEX: ReadonlySet<ComponentKind> = new Set(["head", "neuron", "source", "feature"]);

/** Whether a table is complete: columns of one length, known kinds, and layers and indices where they belong. */
export function isWhole({ kinds, kind, layer, index }: ComponentTable): boolean {
  return (
    layer.length === kind.length &&
    index.length === kind.length &&
    kind.every((at, i) => {
      const one = kinds[at];
      return one && (layer[i] === null) === WITHOUT_LAYER.has(one) && (index[i] !== null) === WITH_INDEX.has(one);
    })
  );
}

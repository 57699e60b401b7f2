// The rows of a column: the components that add most to a target inside the model or take most from it. The last line
// is the sum of all other components, so the lines always sum to the whole.
import type { Attribution } from "../../state/store";
import { isBefore } from "../../state/target";
import { type Component, componentsOf } from "../../wire/components";
import type { Target } from "../../wire/protocol.gen";

export interface Line {
  /** Null for the constant, for example biases. */
  component: Component | null;
  /** "L21H5", "MLP 0", "embedding". */
  name: string;
  value: number;
}
export interface Lines {
  /** The strongest components, the strongest first. */
  lines: Line[];
  others: { count: number; value: number };
  /** The sum of `lines` and `others`. */
  total: number;
  /** The largest absolute value in `lines` and `others`. */
  largest: number;
}

const NAMES: Partial<Record<Component["kind"], string>> = {
  mlp_out: "MLP",
  attn_out: "attention",
  mixer_out: "mixer",
  per_layer_out: "per-layer input",
  layer_out: "layer",
  attn_bias: "attention bias",
  mlp_bias: "MLP bias",
  embed: "embedding",
  pos_embed: "position embedding",
  position_bias: "position bias",
  soft_cap: "soft-cap",
  biases: "biases",
};

/** A component as it is named on screen: "MLP 0". */
export function nameOf({ kind, layer, label }: Component): string {
  const name = NAMES[kind];
  return name === undefined ? label : layer === null ? name : `${name} ${layer}`;
}

/** `parallel`: the layers whose MLP reads the stream before the layer. */
export function linesOf(
  { reply, rows }: Attribution,
  target: Target,
  most: number,
  parallel: readonly number[],
): Lines {
  const all = componentsOf(reply.components).flatMap((component, i): Line[] => {
    const value = rows[i] ?? NaN;
    if (Number.isNaN(value) || !isBefore(target, component, parallel)) return [];
    return [{ component, name: nameOf(component), value }];
  });
  if (reply.constant !== 0) all.push({ component: null, name: "constant", value: reply.constant });
  all.sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
  // If only one component would be left over, it is listed, too: its name is more useful than "1 other".
  const listed = all.length === most + 1 ? all : all.slice(0, most);
  const total = all.reduce((sum, { value }) => sum + value, 0);
  const others = {
    count: all.length - listed.length,
    value: total - listed.reduce((sum, { value }) => sum + value, 0),
  };
  const largest = Math.max(0, Math.abs(others.value), ...listed.map(({ value }) => Math.abs(value)));
  return { lines: listed, others, total, largest };
}

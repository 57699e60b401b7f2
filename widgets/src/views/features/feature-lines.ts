// The rows of an SAE, as the tab "features" lists them: first the rows that are not features, then the features, the
// strongest first. A last line has the sum of all other active features, so that the lines sum to the same total as all
// rows.
import { plural, signed, vanishes } from "../../base/format";
import { type Component, componentsOf } from "../../wire/components";
import type { FeaturesReply } from "../../wire/protocol.gen";

export interface Found {
  reply: FeaturesReply;
  /** [component]: the contributions. */
  values: Float32Array;
  /** [component]: the activations of the features; NaN for other rows. */
  activations: Float32Array;
}
export interface FeatureLine {
  component: Component;
  /** "error", "b_dec", "feature 1234" */
  name: string;
  value: number;
  /** Null if the row is no feature. */
  activation: number | null;
  /** The address of the feature's page on Neuronpedia. */
  link: string | null;
}
export interface FeatureLines {
  lines: FeatureLine[];
  /** The active features that are not listed. */
  others: { count: number; value: number };
  /** The largest absolute value in `lines` and `others`. */
  largest: number;
  /** The largest absolute activation in `lines`. */
  mostActive: number;
}

const NAMES: Partial<Record<Component["kind"], string>> = {
  skip: "skip connection",
  attn_bias: "attention bias",
};

export function rowName({ kind, index, label }: Component): string {
  return kind === "feature" ? `feature ${index}` : (NAMES[kind] ?? label);
}

/** An address, if it is a page of Neuronpedia. */
export function pageOf(link: string): string | null {
  return /^https:\/\/www\.neuronpedia\.org\/[\w.-]+(\/[\w.-]+)+$/.test(link) && !link.includes("..") ? link : null;
}

/** Lists the `most` strongest features. If only one more is active, it is listed, too. */
export function featureLines({ reply, values, activations }: Found, most: number): FeatureLines {
  const all = componentsOf(reply.components).map((component, i): FeatureLine => {
    const isFeature = component.kind === "feature";
    return {
      component,
      name: rowName(component),
      value: values[i] ?? NaN,
      activation: isFeature ? (activations[i] ?? NaN) : null,
      link: isFeature ? pageOf(reply.links[i] ?? "") : null,
    };
  });
  const [rest, features] = [all.filter(isNoFeature), all.filter((line) => !isNoFeature(line))];
  const listed = reply.active === most + 1 ? features : features.slice(0, most);
  const unlisted = features.slice(listed.length).reduce((sum, { value }) => sum + value, reply.others);
  const lines = [...rest, ...listed];
  const others = { count: Math.max(0, reply.active - listed.length), value: unlisted };
  return {
    lines,
    others,
    largest: Math.max(0, Math.abs(others.value), ...lines.map(({ value }) => Math.abs(value))),
    mostActive: Math.max(0, ...listed.map(({ activation }) => Math.abs(activation ?? 0))),
  };
}

const isNoFeature = ({ activation }: FeatureLine): boolean => activation === null;

/** "9 others" */
export const othersName = ({ others }: FeatureLines): string => plural(others.count, "other");

/** Which rows of the layers are replaced by the rows of the SAE: "the row MLP 23". */
export function placeWords({ row }: FeaturesReply): string {
  const [at] = componentsOf(row);
  switch (at?.kind) {
    case undefined:
      return "";
    case "mlp_out":
      return `the row MLP ${at.layer}`;
    case "attn_out":
      return `the row attention ${at.layer}`;
    case "final_post":
      return "all rows";
    default:
      return `all rows before ${at?.label}`;
  }
}

/** Whether the rows of the SAE sum to the rows that they replace. */
export function verdict(reply: FeaturesReply): "agrees" | "misses" | "unmeasured" {
  if (reply.measured === null || reply.worst === null) return "unmeasured";
  return reply.worst <= reply.tolerance ? "agrees" : "misses";
}

/** The badge: what the rows sum to, and what this sum should equal. */
export function badgeWords(reply: FeaturesReply): string {
  const { total, measured, worst } = reply;
  const largest = Math.max(Math.abs(total), Math.abs(measured ?? 0));
  const sum = signed(total, largest, 1);
  switch (verdict(reply)) {
    case "agrees":
      return `✓ rows sum to ${sum}, ${placeWords(reply)}`;
    case "unmeasured":
      return `rows sum to ${sum} · not compared with ${placeWords(reply)}`;
    case "misses":
      return vanishes(total - (measured ?? 0), largest, 1)
        ? `rows miss ${placeWords(reply)} by up to ${signed(worst ?? NaN, largest, 1).replace("+", "")} in a prompt`
        : `rows sum to ${sum}, not to ${signed(measured ?? NaN, largest, 1)}, ${placeWords(reply)}`;
  }
}

// The target, shown and edited for one prompt or for all. Pure functions over the wire's Target.
import { headName, quoted, visible } from "../base/format";
import { shown } from "../base/legible";
import type { Component } from "../wire/components";
import type { AttentionScore, Contrast, Shown, Target, Through, Token } from "../wire/protocol.gen";

/** A destination position: an index, or “last”, each prompt's last real token. */
export type Position = NonNullable<Shown["position"]>;

export type Side = "answer" | "distractor";

export const NOTHING: Target = { contrasts: [], direction: null, own: false };

export function isSet(target: Target): boolean {
  return target.contrasts.length > 0 || !!target.direction || !!target.inner || !!target.next_token;
}

/** For each position, the logit of the token that follows; or this logit minus that of the most likely other token. */
export function nextToken(versus: "runner-up" | null = null): Target {
  return { contrasts: [], direction: null, own: false, next_token: { versus } };
}

/** Whether each position has its own target: the token that follows, or what a head contributes to it. */
export function isNext({ next_token }: Target): boolean {
  return !!next_token;
}

/** Whether the tokens are coloured by what is added to each of them, and a click on a token asks what predicted it. */
export function asksEach(target: Target): boolean {
  return isNext(target) && !isInside(target);
}

/** The position "last" in prompts of different lengths. The last token has no next token. */
export function endWords(target: Target): string {
  return isNext(target) ? "the token before each prompt’s last" : "each prompt’s last token";
}

/** The position "last" of one prompt, or shortly of all. */
export function lastWords(target: Target): string {
  return isNext(target) ? "the token before the last" : "the last token";
}

/** "what came next", "what came next − runner-up" */
export function nextWords({ next_token }: Target): string {
  return next_token?.versus ? "what came next − runner-up" : "what came next";
}

/** Equal targets have the same key. */
export function targetKey(target: Target): string {
  const ids = (tokens: Token[]): string => tokens.map((t) => t.id).join(",");
  const logits = target.contrasts.map((c) => `${ids(c.answer)}-${ids(c.distractor)}`).join(";");
  const through = (target.through ?? []).map(({ layer, head, source }) => [layer, head, source]);
  const more =
    target.inner || through.length > 0 ? `|${JSON.stringify([innerKey(target.inner ?? null), through])}` : "";
  const next = target.next_token ? `|next ${target.next_token.versus ?? ""}` : "";
  return `${target.direction ?? ""}|${logits}${next}${more}`;
}

function innerKey(inner: Inner | null): unknown {
  switch (inner?.kind) {
    case undefined:
      return null;
    case "attention": {
      const { layer, head, destination, source, versus = "most", side = "query" } = inner;
      return ["attention", layer, head, destination, source, versus, side];
    }
    case "neuron":
      return ["neuron", inner.layer, inner.index, inner.part ?? "pre"];
    case "direction":
      return ["direction", inner.key, inner.at];
  }
}

// --- targets inside the model ----------------------------------------------------------------------------------------
export type Inner = NonNullable<Target["inner"]>;

/** A target inside the model instead of logits. */
export function innerTarget(inner: Inner): Target {
  return { contrasts: [], direction: null, own: false, inner, through: [] };
}

/** Whether a target is read at an earlier point of the stream than logits are. */
export function isInside({ inner, through = [] }: Target): boolean {
  return !!inner || through.length > 0;
}

/** The attention score that is the target itself; null if the target is no attention score. */
export function scoreIn({ inner, through = [] }: Target): AttentionScore | null {
  return inner?.kind === "attention" && through.length === 0 ? inner : null;
}

/** Whether a target is what this head contributes, or is this head's attention score. */
export function isAboutHead(target: Target, { layer, head }: { layer: number; head: number }): boolean {
  const of = target.through?.at(-1) ?? scoreIn(target);
  return of?.layer === layer && of.head === head;
}

/** What a head contributes to a target, by what it reads from a source. */
export function throughHead(target: Target, head: Through): Target {
  const { contrasts, direction = null, inner = null, through = [], next_token = null } = target;
  return { contrasts, direction, own: false, inner, through: [...through, head], next_token };
}

/** For a target that is a head's contribution to another target: that other target. */
export function behindHead(target: Target): Target {
  return { ...target, through: (target.through ?? []).slice(0, -1) };
}

export function ofSide(target: Target, inner: AttentionScore, side: "query" | "key"): Target {
  return { ...target, inner: { ...inner, side } };
}

/** The position at which a target reads the stream; null if it is read at each source. */
export function readAt({ inner, through = [] }: Target, position: Position): Position | null {
  const last = through.at(-1);
  if (last) return last.source;
  if (inner?.kind !== "attention") return position;
  return inner.side === "key" ? inner.source : inner.destination;
}

/** The destination of the attention score that a target is about; null if the target is about no attention score. */
export function destinationOf({ inner }: Target): Position | null {
  return inner?.kind === "attention" ? inner.destination : null;
}

/** The form that a position has in requests: the last position is "last". */
export function placed(position: Position, last: number | null): Position {
  return position === last ? "last" : position;
}

/**
 * The first layer whose attention comes after the point at which a target is read. The MLPs of `parallel` layers read
 * the stream before their layer.
 */
export function layerOf({ inner, through = [] }: Target, parallel: readonly number[]): number {
  const last = through.at(-1);
  if (last) return last.layer;
  switch (inner?.kind) {
    case "attention":
      return inner.layer;
    case "neuron":
      return inner.layer + (parallel.includes(inner.layer) ? 0 : 1);
    case "direction": {
      const [layer = "", point] = inner.at.split("_");
      return /^\d+$/.test(layer) ? Number(layer) + (point === "mid" ? 1 : 0) : Infinity;
    }
    case undefined:
      return Infinity;
  }
}

/**
 * Whether a component writes to the stream before the point at which a target is read. The MLPs of `parallel` layers
 * read the stream before their layer.
 */
export function isBefore(
  target: Target,
  { kind, layer }: Pick<Component, "kind" | "layer">,
  parallel: readonly number[],
): boolean {
  if (layer === null) return true;
  const { inner, through = [] } = target;
  const atMid =
    through.length === 0 &&
    ((inner?.kind === "neuron" && !parallel.includes(inner.layer)) ||
      (inner?.kind === "direction" && inner.at.endsWith("_mid")));
  const late = atMid && AFTER_MID.has(kind);
  return layer < layerOf(target, parallel) - (late ? 1 : 0);
}

/** What a layer writes after the point between its attention and its MLP. */
const AFTER_MID: ReadonlySet<Component["kind"]> = new Set([
  "mlp_out",
  "mlp_bias",
  "per_layer_out",
  "layer_out",
  "neuron",
]);

/** What a target inside the model measures, as a noun; null for logits. */
export function insideQuantity(target: Target): string | null {
  if (!isInside(target)) return null;
  const through = target.through?.at(-1);
  if (through) return `contribution of ${headName(through.layer, through.head)}`;
  switch (target.inner?.kind) {
    case "attention":
      return target.inner.versus === null ? "attention score" : "difference of attention scores";
    case "neuron":
      return `input of L${target.inner.layer}N${target.inner.index}`;
    default:
      return target.inner?.feature ? `input of feature ${target.inner.feature.index}` : "value along the direction";
  }
}

/** A feature as it is named on screen: "feature 1234 of blocks.8.hook_resid_pre". */
export function featureName(index: number, site: string): string {
  return `feature ${index} of ${shown(site)}`;
}

// --- logits ----------------------------------------------------------------------------------------------------------

/** The contrasts for the current prompt: one, or all of them in the mean. */
export function inView(target: Target, prompt: number | null): Contrast[] {
  if (target.contrasts.length <= 1 || prompt === null) return target.contrasts;
  const own = target.contrasts[prompt];
  return own ? [own] : [];
}

/** The tokens of one side if all contrasts in view share them, else null. */
export function shared(contrasts: Contrast[], side: Side): Token[] | null {
  const first = contrasts[0];
  if (!first) return [];
  const key = (c: Contrast): string => c[side].map((t) => t.id).join(",");
  return contrasts.every((c) => key(c) === key(first)) ? first[side] : null;
}

/** "logit difference" when something is subtracted, else "logit". */
export function quantity(target: Target, prompt: number | null): string {
  const inside = insideQuantity(target);
  if (inside !== null) return inside;
  if (target.direction) return "value along the direction";
  if (target.next_token?.versus) return "logit difference";
  return inView(target, prompt).some((c) => c.distractor.length > 0) ? "logit difference" : "logit";
}

export function label(tokens: Token[]): string {
  return tokens.map((t) => visible(t.text)).join(", ");
}

/** An edited target, and a notice about consequences that are not visible otherwise. */
export interface Edited {
  target: Target;
  notice: string | null;
}

/**
 * Sets one side. If each prompt has its own contrast and one prompt is in view, only that prompt's contrast changes. In
 * the mean, all contrasts change, and as soon as they are equal they become one contrast.
 *
 * The target may be the model's top token − its second. If its top token is edited in the mean, second tokens that
 * differ between prompts are dropped: "·Mary − each prompt's second" would make no sense. A distractor that all prompts
 * share is visible, so it is kept.
 */
export function edit(target: Target, prompt: number | null, side: Side, tokens: Token[]): Edited {
  if (target.contrasts.length === 0 || target.direction) {
    const empty: Contrast = { answer: [], distractor: [] };
    return { target: { contrasts: [{ ...empty, [side]: tokens }], direction: null, own: false }, notice: null };
  }
  const count = target.contrasts.length;
  const all = prompt === null || count === 1;
  const other: Side = side === "answer" ? "distractor" : "answer";
  const mixed = target.own === true && all && shared(target.contrasts, other) === null;
  const dropped = mixed && side === "answer" ? { distractor: [] } : {};
  const contrasts = target.contrasts.map((c, i) => (all || i === prompt ? { ...c, ...dropped, [side]: tokens } : c));
  return { target: collapse(contrasts, all), notice: noticeFor() };

  function noticeFor(): string | null {
    const rest = count - 1;
    if (target.own && !all) {
      const others = rest === 1 ? "one keeps" : `${rest} keep`;
      return (
        `Only prompt ${prompt} was changed: the other ${others} the model’s own top token − its second. ` +
        "The mean is over both kinds."
      );
    }
    if (!mixed) return null;
    if (side === "answer")
      return (
        "Each prompt’s second token was dropped, because it belongs to the model’s own top token: " +
        `this is the plain logit of ${quoted(label(tokens))}.`
      );
    const top = "each prompt’s own top token";
    return tokens.length > 0
      ? `The answer stays ${top}; ${quoted(label(tokens))} is subtracted in every prompt.`
      : `The answer stays ${top}: this is its plain logit.`;
  }
}

export function canSwap(target: Target): boolean {
  return target.contrasts.length > 0 && target.contrasts.every((c) => c.distractor.length > 0);
}

/** Swaps answer and distractor, in all prompts. */
export function swap(target: Target): Target {
  if (!canSwap(target)) return target;
  return {
    contrasts: target.contrasts.map((c) => ({ answer: c.distractor, distractor: c.answer })),
    direction: null,
    own: false,
  };
}

function collapse(contrasts: Contrast[], all: boolean): Target {
  const first = contrasts[0];
  const equal = all && first && shared(contrasts, "answer") && shared(contrasts, "distractor");
  return { contrasts: equal ? [first] : contrasts, direction: null, own: false };
}

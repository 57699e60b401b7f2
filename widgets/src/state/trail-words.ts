// Targets in words: the steps of the trail, and what is measured.

import { headName } from "../base/format";
import { shown } from "../base/legible";
import type { AttentionScore, InnerFacts, Step, Target } from "../wire/protocol.gen";
import { noQuestion } from "./next-tokens";
import type { Values } from "./selectable";
import type { Store } from "./store";
import { featureName, inView, isNext, label, nextWords, type Position, placed, shared, targetKey } from "./target";

/** A step in words: the name of what it is about (a head, a neuron, tokens), and the words around the name. */
export interface StepWords {
  before: string;
  name: string;
  after: string;
}

export const plainWords = ({ before, name, after }: StepWords): string => before + name + after;

/** The facts about a target inside the model, in the shown prompt; null if no reply had them. */
export function factsOf(store: Store, target: Target): InnerFacts | null {
  if (store.isMean.value) return null; // facts are about one prompt
  return store.inner.value.get(innerFactsKey(store, target)) ?? null;
}

export function innerFactsKey(store: Store, target: Target): string {
  return `${store.dataKey.value} ${store.prompt.value} ${targetKey(target)}`;
}

export function stepWords(store: Store, { target, position = "last" }: Step): StepWords {
  const through = target.through?.at(-1);
  if (through) {
    const { layer, head, source } = through;
    const from = source === null ? "" : ` from ${store.tokenName(source)}`;
    return { before: "what ", name: headName(layer, head), after: ` moves${from}` };
  }
  switch (target.inner?.kind) {
    case "attention":
      return {
        before: "",
        name: headName(target.inner.layer, target.inner.head),
        after: `${destinationWords(store, target.inner)} reads ${store.tokenName(target.inner.source)}${versusWords(
          store,
          target,
          target.inner,
        )}`,
      };
    case "neuron":
      return {
        before: target.inner.part === "up" ? "the linear part of " : "the input of ",
        name: `L${target.inner.layer}N${target.inner.index}`,
        after: placeWords(store, position),
      };
    case "direction": {
      const { feature = null } = target.inner;
      if (feature)
        return {
          before: "the input of ",
          name: featureName(feature.index, feature.read),
          after: placeWords(store, position),
        };
      return { before: "the direction ", name: shown(target.inner.key), after: ` at ${shown(target.inner.at)}` };
    }
    case undefined:
      return { before: "", name: logitWords(store, target), after: placeWords(store, position) };
  }
}

/** " and not <|im_start|>₀", " more than on average"; "" for the score alone. */
function versusWords(store: Store, target: Target, { versus = "most" }: AttentionScore): string {
  if (versus === null) return "";
  if (versus === "mean") return " more than on average";
  const other = versus === "most" ? (factsOf(store, target)?.versus ?? null) : versus;
  // In the mean, this is a different token in each prompt.
  if (other === null) return store.isMean.value ? " and not the other token with the most attention" : "";
  return ` and not ${store.tokenName(other)}`;
}

/** " at ·to", if it is not the position of the logits that the trail began with. */
function destinationWords(store: Store, { destination }: AttentionScore): string {
  const { steps } = store.path.value;
  const first = steps.find(({ target }) => !target.inner);
  const last = store.lastPosition.value;
  return placed(destination, last) === placed(first?.position ?? "last", last) ? "" : placeWords(store, destination);
}

/** Why a token cannot be selected as the destination of the present target. */
export function fixedWords(store: Store, at: number): string {
  if (isNext(store.target.value)) return noQuestion(store, at);
  const { inner, through = [] } = store.target.value;
  if (inner?.kind !== "attention") return "";
  const name = headName(inner.layer, inner.head);
  return through.length > 0
    ? `the destination of ${name} belongs to this step of the trail`
    : `no destination for this step: ${name} reads ${store.tokenName(inner.source)}, which comes later`;
}

/** " at ·to"; "" if prompts end at different positions. */
function placeWords(store: Store, position: Position): string {
  const at = position === "last" ? store.lastPosition.value : position;
  return at === null ? "" : ` at ${store.tokenName(at)}`;
}

/** "·Mary − ·John" */
export function logitWords(store: Store, target: Target): string {
  if (target.direction) return "the direction";
  if (isNext(target)) return nextWords(target);
  const contrasts = inView(target, store.prompt.value);
  const [answer, distractor] = [shared(contrasts, "answer"), shared(contrasts, "distractor")];
  if (!answer || !distractor) return "each prompt’s own answer";
  return distractor.length > 0 ? `${label(answer)} − ${label(distractor)}` : label(answer);
}

/** What colours the head map if it shows what feeds a head. */
export function feedsWords(store: Store, { layer, head, source, by }: NonNullable<Values["feeds"]>): string {
  const [name, token] = [headName(layer, head), store.tokenName(source)];
  return by === "value"
    ? `What each earlier head put at ${token} that ${name} moves into the ${store.quantity.value}`
    : `What each earlier head adds, through the ${by} of ${name}, to its score for ${token}`;
}

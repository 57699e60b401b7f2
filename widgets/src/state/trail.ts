// The trail: the targets that the user chose one after another, each with its position. Each step can be shown again.
import { batch } from "@preact/signals-core";
import { headName, parseHead } from "../base/format";
import type { AttentionScore, Step, Target } from "../wire/protocol.gen";
import { hasNext } from "./next-tokens";
import { baseOf, type Path, pathOf } from "./path";
import type { Spot } from "./reading";
import type { Store } from "./store";
import {
  destinationOf,
  innerTarget,
  isInside,
  isNext,
  isSet,
  NOTHING,
  type Position,
  placed,
  readAt,
  scoreIn,
  targetKey,
  throughHead,
} from "./target";

/** The same as MOST_OF_TRAIL in py_backend/residscope/wire/shown.py. */
const MOST = 32;

/** Asks for another target. It becomes the next step; the steps after the present one are dropped. */
export function ask(store: Store, target: Target, position: Position = store.chosenPosition.peek()): void {
  const { steps, at } = peek(store);
  if (targetKey(steps[at]?.target ?? NOTHING) === targetKey(target)) return void (store.tab.value = "why");
  const next = [...steps.slice(0, at + 1), { target, position }];
  if (next.length > MOST) next.splice(1, 1); // the first step stays: the others are about its logits
  batch(() => {
    put(store, next, next.length - 1);
    if (at === 0) store.tabBeforeWhy = store.tab.peek();
    store.tab.value = "why";
    store.folded.value = store.folded.peek().filter((section) => section !== "views");
    store.trailAdditions.value += 1;
  });
}

/** Shows another target in place of the present one. The other steps stay. */
export function instead(store: Store, target: Target): void {
  const { steps, at } = peek(store);
  const step = { target, position: store.chosenPosition.peek() };
  put(
    store,
    steps.map((other, i) => (i === at ? step : other)),
    at,
  );
}

/** Shows a step of the trail again. Back at the logits, the tab that was open before the first question opens again. */
export function go(store: Store, at: number): void {
  const { steps, at: now } = peek(store);
  const step = steps[at];
  if (!step || at === now) return;
  batch(() => {
    put(store, steps, at);
    const before = store.tabBeforeWhy;
    if (!isInside(step.target) && before !== null && store.tab.peek() === "why") store.tab.value = before;
  });
}

/** Begins a new trail with these logits. */
export function begin(store: Store, target: Target): void {
  const base = baseOf(store.shown);
  const position = basePosition(store, base);
  // The last token has no next token. So, if each position has its own target, the last position is one earlier.
  const moves = position === "last" && isNext(base.target) !== isNext(target);
  batch(() => {
    if (store.trail.peek().length > 0) return put(store, [{ target, position }], 0);
    store.target.value = target;
    if (moves) store.position.value = "last";
  });
}

/** The position of a step; "last" if its target cannot be read at a later position. */
function basePosition(store: Store, { target, position }: { target: Target; position: Position }): Position {
  const end = store.endPosition.peek();
  return end !== null && isNext(target) ? placed(position, end - 1) : position;
}

function peek(store: Store): Path {
  const { trail, stepAt, target, chosenPosition } = store;
  return pathOf({
    trail: trail.peek(),
    step: stepAt.peek(),
    target: target.peek(),
    position: chosenPosition.peek(),
  });
}

function put(store: Store, steps: readonly Step[], at: number): void {
  const step = steps[at];
  if (!step) return;
  const { position = "last" } = step;
  batch(() => {
    store.trail.value = steps.length > 1 ? [...steps] : [];
    store.stepAt.value = steps.length > 1 ? at : 0;
    store.target.value = step.target;
    if (position !== store.chosenPosition.peek()) store.position.value = position;
    // The sentence under the tokens is then about the target's head, not about the head that was in the preview before.
    const head = headOf(step.target);
    if (head !== null && !store.isAbsent(head)) store.preview.value = head;
  });
}

/** The head that a target inside the model is about. */
function headOf(target: Target): string | null {
  const of = target.through?.at(-1) ?? scoreIn(target);
  return of ? headName(of.layer, of.head) : null;
}

/**
 * What "why here?" compares with: the other ordinary token that the head reads most. A head often reads a special token
 * (BOS) only because nothing else fits. "most" is each prompt's other source with the most attention.
 */
function comparedWith(store: Store, { head, destination, source }: Spot): number | "most" {
  const { reading, tokens, isMean } = store;
  const read = reading.peek();
  if (isMean.peek() || read?.head !== head || read.destination !== destination) return "most";
  const weightOf = (at: number): number => (at === source || tokens.peek()[at]?.special ? 0 : (read.weights[at] ?? 0));
  const best = [...read.weights.keys()].reduce((most, at) => (weightOf(at) > weightOf(most) ? at : most), source);
  return weightOf(best) >= LEAST_READ ? best : "most";
}

/** A source with less attention is not what a head could have read instead. */
const LEAST_READ = 0.01;

/** "Why here?": why the head reads this source, and not another one (`comparedWith`). */
export function askWhy(store: Store, spot: Spot): void {
  const head = parseHead(spot.head);
  if (!head) return;
  // In the mean over prompts of different lengths, each prompt is read at the position before its last token. A score
  // cannot have such a destination.
  if (spot.destination === null && isNext(store.target.peek())) return;
  const destination = positionOf(store, spot.destination);
  const { source } = spot;
  ask(
    store,
    innerTarget({
      kind: "attention",
      ...head,
      destination,
      source,
      versus: comparedWith(store, spot),
      side: "query",
    }),
    destination,
  );
}

/** Whether the head writes to the present target at this destination. */
export function canAskWho(store: Store, { head: name, destination }: Spot): boolean {
  const head = parseHead(name);
  const target = store.target.value;
  if (!head || !isSet(target) || head.layer >= store.targetLayer.value) return false;
  const read = readAt(target, store.chosenPosition.value);
  return read !== null && placed(read, store.endPosition.value) === positionOf(store, destination);
}

/**
 * Selects a destination position; if it is selected already, selects the last position. An attention score has its own
 * destination. For such a target, the same head at the new destination becomes a further step, unless its source is
 * later.
 */
export function selectPosition(store: Store, at: number): void {
  const target = store.target.peek();
  const score = scoreIn(target);
  if (!canSelect(store, at)) return;
  if (!score) return store.togglePosition(at);
  const to = at === store.locked.peek() || at === store.lastPosition.peek() ? "last" : at;
  const last = store.lastPosition.peek();
  const end = to === "last" ? last : to;
  if (end === null || score.source > end) return;
  ask(store, { ...target, inner: atDestination(score, to, end) }, to);
}

/** Whether a position can be selected: the destination of an attention score is at its source or after it. */
export function canSelect(store: Store, at: number): boolean {
  const target = store.target.value;
  if (isNext(target) && store.tokens.value.length > 0) return hasNext(store, at);
  if (destinationOf(target) === null) return true;
  const score = scoreIn(target);
  return score !== null && score.source <= at;
}

/** The score at another destination. The token that it is compared with stays, unless that token is later. */
function atDestination(score: AttentionScore, destination: Position, end: number): AttentionScore {
  const { versus = "most" } = score;
  return { ...score, destination, versus: typeof versus === "number" && versus > end ? "most" : versus };
}

/** "Who put that there?": which components wrote what the head moves from the source into the present target. */
export function askWho(store: Store, spot: Spot): void {
  const head = parseHead(spot.head);
  if (head && canAskWho(store, spot)) ask(store, throughHead(store.target.peek(), { ...head, source: spot.source }));
}

/** "Why is it on?": what a neuron reads before its activation function, at a position. */
export function askNeuron(store: Store, neuron: { layer: number; index: number }, position?: Position): void {
  ask(store, innerTarget({ kind: "neuron", ...neuron, part: "pre" }), position);
}

/** The form that a position has in targets: the last position is "last". */
function positionOf(store: Store, position: number | null): Position {
  return position === null ? "last" : placed(position, store.endPosition.value);
}

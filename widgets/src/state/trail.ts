// The trail: the targets that were asked one after another, each with its position. Each step can be shown again.
import { batch } from "@preact/signals-core";
import type { Step, Target } from "../wire/protocol.gen";
import { baseOf, type Path, pathOf } from "./path";
import type { Store } from "./store";
import { NOTHING, type Position, targetKey } from "./target";

/** As MOST_OF_TRAIL in the wire. */
const MOST = 32;

/** Asks for another target. It becomes the next step; the steps after the present one are dropped. */
export function ask(store: Store, target: Target, position: Position = store.chosenPosition.peek()): void {
  const { steps, at } = peek(store);
  if (targetKey(steps[at]?.target ?? NOTHING) === targetKey(target)) return void (store.tab.value = "why");
  const next = [...steps.slice(0, at + 1), { target, position }];
  if (next.length > MOST) next.splice(1, 1); // the first step says what all others are about
  batch(() => {
    put(store, next, next.length - 1);
    store.tab.value = "why";
  });
}

/** Shows another target in place of the present one. */
export function instead(store: Store, target: Target): void {
  const { steps, at } = peek(store);
  put(store, [...steps.slice(0, at), { target, position: store.chosenPosition.peek() }], at);
}

/** Shows a step of the trail again. */
export function go(store: Store, at: number): void {
  const { steps, at: now } = peek(store);
  if (at !== now && at >= 0 && at < steps.length) put(store, steps, at);
}

/** Begins anew with these logits. */
export function begin(store: Store, target: Target): void {
  put(store, [{ target, position: baseOf(store.shown).position }], 0);
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
  });
}

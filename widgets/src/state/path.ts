// The steps of the trail, and which of them is the present one. A target that was set from outside, for example from
// Python, may not be in the trail. The path then has only one step: this target.
import type { Step, Target } from "../wire/protocol.gen";
import type { Selected } from "./selectable";
import { isInside, NOTHING, type Position, targetKey } from "./target";

export interface Path {
  steps: readonly Step[];
  /** The place of the present step. */
  at: number;
}

/** The path of a selection. Its present step has the present position. */
export function pathOf({
  trail,
  step,
  target,
  position,
}: Pick<Selected, "trail" | "step" | "target" | "position">): Path {
  const shown = trail[step];
  if (!shown || targetKey(shown.target) !== targetKey(target)) return { steps: [{ target, position }], at: 0 };
  return { steps: trail.map((one, at) => (at === step ? { target, position } : one)), at: step };
}

/** The steps before the present one. */
export function stepsBefore(shown: Parameters<typeof pathOf>[0]): readonly Step[] {
  const { steps, at } = pathOf(shown);
  return steps.slice(0, at);
}

/** The last logits up to the present step, and their position; no target if the trail began inside the model. */
export function baseOf(shown: Parameters<typeof pathOf>[0]): { target: Target; position: Position } {
  const { steps, at } = pathOf(shown);
  const step = steps.slice(0, at + 1).findLast(({ target }) => !target.inner);
  if (!step) return { target: NOTHING, position: shown.position };
  const { target, position = "last" } = step;
  if (!isInside(target)) return { target, position };
  const { contrasts, direction = null, next_token = null } = target; // the logits that a head contributes to
  return { target: { ...NOTHING, contrasts, direction, next_token }, position };
}

// The words for a measured effect. If zero or the mean takes the place of an activation, a value is what the component
// adds: minus the change of the target. If the activation of the compared run B is put in, a value is the change.
import type { Caused, Effect } from "./effects";

/** The sign of the values, before a list of them: "adds: total +2.65", "change with B’s output: total +4.66". */
export function signWords(isPutIn: boolean): string {
  return isPutIn ? "change with B’s output" : "adds";
}

/** What the values of all heads are: "what each head adds", "the change with B’s output". */
export function valueWords(isPutIn: boolean): string {
  return isPutIn ? "the change with B’s output" : "what each head adds";
}

const HOW: Record<Caused, string> = { total: "in total", indirect: "indirectly", estimate: "in total, estimated" };
const CHANGE: Record<Caused, string> = { total: "total", indirect: "indirect", estimate: "estimated total" };

/** "what each adds in total", "the indirect change with B’s output". */
export function effectName(effect: Caused, isPutIn: boolean): string {
  return isPutIn ? `the ${CHANGE[effect]} change with B’s output` : `what each adds ${HOW[effect]}`;
}

/** For a figure: "what each head adds in total to the logit difference". */
export function effectTitle(effect: Caused, isPutIn: boolean, quantity: string): string {
  return isPutIn
    ? `the ${CHANGE[effect]} change of the ${quantity} with B’s output of each head`
    : `what each head adds ${effect === "indirect" ? "indirectly" : "in total"} to the ${quantity}${
        effect === "estimate" ? ", estimated" : ""
      }`;
}

/** The name of an axis of a scatter plot: "adds directly", "total change". */
export function axisWords(axis: string, isPutIn: boolean): string {
  const how = axis === "direct" ? "directly" : axis === "estimate" ? HOW.estimate : HOW.total;
  const change = axis === "direct" ? "direct" : axis === "estimate" ? CHANGE.estimate : CHANGE.total;
  return isPutIn ? `${change} change` : `adds ${how}`;
}

const RUNS_THE_MODEL = "This runs your model, between cells.";

/** The tooltip of a choice in the switch. */
export function effectTip(effect: Effect, isPutIn: boolean): string {
  const adds = isPutIn ? "How the target changes with B’s output of each head" : "What each head adds";
  switch (effect) {
    case "direct":
      return "What each head adds through the stream alone. The model is not run";
    case "total":
      return `${adds}, including the effects through later layers. ${RUNS_THE_MODEL}`;
    case "indirect":
      return `${adds}, through later layers: total − direct. ${RUNS_THE_MODEL}`;
    case "estimate":
      return `${adds}, estimated by one gradient. An estimate can have the wrong sign. ${RUNS_THE_MODEL}`;
  }
}

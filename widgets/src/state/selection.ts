// The selection of a view as plain data. A host stores it and restores it later, perhaps for another cache. What can be
// selected is defined in selectable.ts.

import { batch } from "@preact/signals-core";
import { keysOf } from "../base/keys-of";
import type { Shown, Target } from "../wire/protocol.gen";
import {
  fit,
  KEPT,
  type KeptName,
  type Name,
  read,
  readShown,
  type Selected,
  type Shape,
  type Values,
} from "./selectable";
import type { Store } from "./store";
import { isSet, NOTHING } from "./target";

export type Selection = {
  /** The target is null if the user has chosen none; then the view shows the default target of the model. */
  [N in KeptName]: N extends "target" ? Values[N] | null : Values[N];
};
type Plain = Exclude<KeptName, "target">;

/** One value for each name that a host stores, except the target, which the user may not have chosen. */
function each(value: <N extends Plain>(name: N) => Values[N]): Pick<Values, Plain> {
  const plain = KEPT.filter((name): name is Plain => name !== "target");
  return Object.fromEntries(plain.map((name) => [name, value(name)])) as Pick<Values, Plain>;
}

/** The part of a selection that is valid for a cache of this shape. */
export function fitting(selection: Selection, shape: Shape): Selection {
  const target = fit("target", selection.target ?? NOTHING, shape);
  const plain: Pick<Values, Plain> = selection;
  return {
    ...each((name) => fit(name, plain[name] as Values[typeof name], shape)),
    target: isSet(target) ? target : null,
  };
}

export function selectionOf(store: Store, isDefault: (target: Target) => boolean): Selection {
  const target = store.target.value;
  return {
    ...each((name) => (name === "transport" ? store : store.chosen)[name].value),
    target: isSet(target) && !isDefault(target) ? target : null,
  };
}

export function select(store: Store, selection: Selection): void {
  put(store, { ...selection, target: selection.target ?? NOTHING });
}

/** All that is selected, by the names of the wire. */
export function shownOf(store: Store): Selected {
  return { ...store.shown };
}

/** Restores a selection that has the names of the wire. */
export function show(store: Store, shown: Shown): void {
  put(store, readShown(shown));
}

function put(store: Store, values: Partial<Values>): void {
  const one = <N extends Name>(name: N, value: Values[N] | undefined): void => {
    if (value !== undefined) store[name].value = value;
  };
  batch(() => {
    for (const name of keysOf(values)) one(name, values[name]);
  });
}

/** Checks a selection from outside; null if it is not one. */
export function asSelection(value: unknown): Selection | null {
  if (typeof value !== "object" || value === null) return null;
  const given = value as Partial<Record<Name, unknown>>;
  const target = read("target", given.target);
  return { ...each((name) => read(name, given[name])), target: target === NOTHING ? null : target };
}

// "What if": compares the cached run with a run without some heads. The user takes heads out, and puts them back.
import { batch } from "@preact/signals-core";
import type { Store } from "./store";

/** A run can be without at most this many heads: `MOST_WITHOUT` of py_backend/residscope/terms.py. */
const MOST = 64;

/** The heads that the button and the key take out: the pinned heads or, if there are none, the one pointed at. */
export function toTakeOut(store: Store): string[] {
  const out = new Set(store.against.value?.without ?? []);
  const meant = store.heads.value.length > 0 ? store.heads.value : [store.hoveredHead.value ?? []].flat();
  return meant.filter((name) => !out.has(name) && !store.isAbsent(name)).slice(0, MOST - out.size);
}

/** Compares with a run without these heads and those taken out before. The user asks for it, so the model is run. */
export function takeOut(store: Store, heads: string[]): void {
  if (store.isSaved.peek()) return;
  const already = store.against.peek()?.without ?? [];
  const more = heads.slice(0, MOST - already.length);
  if (more.length < heads.length) store.sentence.value = [`A run can be without at most ${MOST} heads.`];
  if (more.length > 0) compareWithout(store, [...already, ...more]);
}

export function putBack(store: Store, head: string): void {
  const left = (store.against.peek()?.without ?? []).filter((name) => name !== head);
  if (left.length > 0) return compareWithout(store, left);
  batch(() => {
    store.against.value = null;
    if (store.replacedBy.peek() === "other") store.replacedBy.value = "zero";
  });
}

function compareWithout(store: Store, without: string[]): void {
  const { replacedBy, against, run, runs } = store;
  const before = against.peek();
  const replaced_by = before?.without?.length
    ? (before.replaced_by ?? "zero")
    : replacedBy.peek() === "mean"
      ? "mean"
      : "zero";
  batch(() => {
    if (!before?.without?.length) run.value = "difference";
    against.value = { cache: null, prompt: null, without, replaced_by };
    runs.whatIf.start();
  });
}

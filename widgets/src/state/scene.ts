// The selection in a cache, and what the kernel has sent about it: all that the requests of a view depend on.
import { type Component, componentsOf } from "../wire/components";
import type { CacheFacts } from "../wire/protocol.gen";
import { rank } from "./ranked";
import type { Selected } from "./selectable";
import type { Store } from "./store";

export interface Scene {
  shown: Selected;
  facts: Pick<CacheFacts, "layers" | "parallel" | "positions" | "prompts" | "saes">;
  /** The destination position, if all prompts have the same. */
  destination: number | null;
  /** The last position, if all prompts have the same. */
  last: number | null;
  ranked: string[];
  points: readonly Component[];
}

export function sceneOf(store: Store): Scene | null {
  const facts = store.facts.value;
  const destination = store.destination.value;
  const { shown } = store;
  const last = store.lastPosition.value;
  return facts && { shown, facts, destination, last, ranked: rankedHeads(store), points: lensPoints(store) };
}

/** The pinned heads, then those in the ranking. */
export function rankedHeads(store: Store): string[] {
  const { layers = 0, heads = 0 } = store.facts.value ?? {};
  const rows = store.headRows.value?.rows ?? new Float32Array(0);
  const { plus, minus } = rank(rows.subarray(0, layers * heads), heads, store.topK.value);
  return [...new Set([...store.heads.value, ...[...plus, ...minus].map(({ name }) => name)])];
}

/** The points of the stream in the token lens. */
export function lensPoints(store: Store): readonly Component[] {
  const table = store.reasonNotDrawn("lens") === null ? store.lens.value?.reply.components : null;
  return componentsOf(table ?? store.facts.value?.points);
}

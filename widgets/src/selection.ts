// What is selected in a view, as plain data: to be kept by a host, and put back later, perhaps onto another cache.
import { batch } from "@preact/signals-core";
import type { CacheRow, Target } from "./protocol.gen";
import type { Norm, Ranking, Store } from "./store";
import { parseHead } from "./format";
import { isSet, NOTHING } from "./target";

export interface Selection {
  prompt: number | null;
  position: number | null;
  /** Null where it is the model's own two top predictions. */
  target: Target | null;
  heads: string[];
  norm: Norm;
  topK: number;
  ranking: Ranking;
  layer: number | null;
}

/** What of a selection makes sense for a cache of this shape. */
export function fitting(selection: Selection, row: Pick<CacheRow, "layers" | "heads" | "prompts" | "positions">): Selection {
  const within = (value: number | null, count: number): number | null => (value !== null && value < count ? value : null);
  const { target } = selection;
  const perPrompt = target !== null && target.contrasts.length > 1;
  return {
    ...selection,
    prompt: within(selection.prompt, row.prompts),
    position: within(selection.position, row.positions),
    layer: within(selection.layer, row.layers),
    heads: selection.heads.filter((name) => {
      const head = parseHead(name);
      return head !== null && head.layer < row.layers && head.head < row.heads;
    }),
    // A direction is held by the kernel that was given it, under a name that means nothing elsewhere.
    target: target && !target.direction && (!perPrompt || target.contrasts.length === row.prompts) ? target : null,
  };
}

export function selectionOf(store: Store, isDefault: (target: Target) => boolean): Selection {
  const target = store.target.value;
  return {
    prompt: store.prompt.value, position: store.locked.value, target: isSet(target) && !isDefault(target) ? target : null,
    heads: store.heads.value, norm: store.norm.value, topK: store.topK.value, ranking: store.ranking.value, layer: store.layer.value,
  };
}

export function select(store: Store, selection: Selection): void {
  batch(() => {
    store.prompt.value = selection.prompt;
    store.position.value = selection.position;
    store.target.value = selection.target ?? NOTHING;
    store.heads.value = selection.heads;
    store.norm.value = selection.norm;
    store.topK.value = selection.topK;
    store.ranking.value = selection.ranking;
    store.layer.value = selection.layer;
  });
}

/** A selection that came from outside: anything that is not one becomes null. */
export function asSelection(value: unknown): Selection | null {
  if (typeof value !== "object" || value === null) return null;
  const { prompt, position, target, heads, norm, topK, ranking, layer } = value as Record<string, unknown>;
  const whole = (v: unknown): number | null => (typeof v === "number" && Number.isInteger(v) && v >= 0 ? v : null);
  const contrasts = typeof target === "object" && target !== null && Array.isArray((target as Target).contrasts);
  return {
    prompt: whole(prompt), position: whole(position), layer: whole(layer), target: contrasts ? (target as Target) : null,
    heads: Array.isArray(heads) ? heads.filter((h) => typeof h === "string") : [],
    norm: norm === "recomputed" ? norm : "frozen", ranking: ranking === "neurons" ? ranking : "heads", topK: Math.min(50, Math.max(1, whole(topK) ?? 5)),
  };
}

// What is selected in a view, as plain data: to be kept by a host, and put back later, perhaps onto another cache.
import { batch } from "@preact/signals-core";
import { safeParse } from "valibot";
import { parseHead } from "../base/format";
import { Target as TargetCheck } from "../wire/protocol.check.gen";
import type { CacheRow, Shown, Target } from "../wire/protocol.gen";
import {
  type Norm,
  type Padding,
  type Presentation,
  type Ranking,
  type Score,
  SECTIONS,
  type Section,
  type Store,
  type Tab,
  type Weighting,
} from "./store";
import { isSet, NOTHING, type Position } from "./target";

export interface Selection {
  prompt: number | null;
  position: Position;
  /** Null where it is the model's own two top predictions. */
  target: Target | null;
  heads: string[];
  norm: Norm;
  topK: number;
  ranking: Ranking;
  layer: number | null;
  weighting: Weighting;
  presentation: Presentation;
  score: Score | null;
  tab: Tab;
  padding: Padding;
  folded: readonly Section[];
  /** The variable whose new caches the view takes by itself. */
  follow: string | null;
}

/** What of a selection makes sense for a cache of this shape. */
export function fitting(
  selection: Selection,
  row: Pick<CacheRow, "layers" | "heads" | "prompts" | "positions">,
): Selection {
  const within = (value: number | null, count: number): number | null =>
    value !== null && value < count ? value : null;
  const { target } = selection;
  const perPrompt = target !== null && target.contrasts.length > 1;
  return {
    ...selection,
    prompt: within(selection.prompt, row.prompts),
    position: (selection.position === "last" ? null : within(selection.position, row.positions)) ?? "last",
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
    prompt: store.prompt.value,
    position: store.chosenPosition.value,
    target: isSet(target) && !isDefault(target) ? target : null,
    heads: store.heads.value,
    norm: store.norm.value,
    topK: store.topK.value,
    ranking: store.ranking.value,
    layer: store.layer.value,
    weighting: store.weighting.value,
    presentation: store.presentation.value,
    score: store.score.value,
    tab: store.tab.value,
    padding: store.padding.value,
    folded: store.folded.value,
    follow: store.follow.value,
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
    store.weighting.value = selection.weighting;
    store.presentation.value = selection.presentation;
    store.score.value = selection.score;
    store.tab.value = selection.tab;
    store.padding.value = selection.padding;
    store.folded.value = selection.folded;
    store.follow.value = selection.follow;
  });
}

/** The same, and what the view shows of it, as the kernel is told. */
export function shownOf(store: Store): Shown {
  return {
    target: store.target.value,
    prompt: store.prompt.value,
    position: store.chosenPosition.value,
    heads: store.heads.value,
    norm: store.norm.value,
    top_k: store.topK.value,
    ranking: store.ranking.value,
    layer: store.layer.value,
    weighting: store.weighting.value,
    presentation: store.presentation.value,
    score: store.score.value,
    tab: store.tab.value,
    by: store.mapBy.value,
    padding: store.padding.value,
  };
}

const WEIGHTINGS: Weighting[] = ["pattern", "value", "contribution"];
const PRESENTATIONS: Presentation[] = ["matrix", "text", "all"];
const SCORES: Score[] = ["previous", "first", "duplicate", "induction", "entropy", "copying"];
const TABS: Tab[] = ["attention", "positions", "token-lens", "prompts"];
/** Of a selection from outside no more heads are looked at. */
const MOST_HEADS = 20_000;
/** No variable's name is longer: `runs["…"]` included. */
const LONGEST_NAME = 1000;
const one = <T>(known: readonly T[], value: unknown): T | undefined => known.find((name) => name === value);

/** A selection that came from outside: anything that is not one becomes null. */
export function asSelection(value: unknown): Selection | null {
  if (typeof value !== "object" || value === null) return null;
  const {
    prompt,
    position,
    target,
    heads,
    norm,
    topK,
    ranking,
    layer,
    weighting,
    presentation,
    score,
    tab,
    padding,
    folded,
    follow,
  } = value as Record<string, unknown>;
  const whole = (v: unknown): number | null => (typeof v === "number" && Number.isInteger(v) && v >= 0 ? v : null);
  const asked = safeParse(TargetCheck, target);
  const named = Array.isArray(heads)
    ? heads.slice(0, MOST_HEADS).filter((head): head is string => typeof head === "string" && parseHead(head) !== null)
    : [];
  return {
    prompt: whole(prompt),
    position: whole(position) ?? "last",
    layer: whole(layer),
    target: asked.success ? asked.output : null,
    heads: [...new Set(named)],
    norm: norm === "recomputed" ? norm : "frozen",
    ranking: ranking === "neurons" ? ranking : "heads",
    topK: Math.min(50, Math.max(1, whole(topK) ?? 5)),
    weighting: one(WEIGHTINGS, weighting) ?? "pattern",
    presentation: one(PRESENTATIONS, presentation) ?? "matrix",
    score: one(SCORES, score) ?? null,
    tab: one(TABS, tab) ?? "attention",
    padding: padding === "none" ? padding : "found",
    folded: Array.isArray(folded) ? SECTIONS.filter((name) => folded.includes(name)) : [],
    follow: typeof follow === "string" && follow !== "" && follow.length <= LONGEST_NAME ? follow : null,
  };
}

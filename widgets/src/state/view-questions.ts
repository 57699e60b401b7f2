// What each view requests: all requests of a view for a selection. questions.ts has the single requests.
import type { Ask } from "../wire/client";
import type { Component } from "../wire/components";
import type { CacheFacts } from "../wire/protocol.gen";
import {
  attention,
  BYS,
  blend,
  comparison,
  contributions,
  effects,
  features,
  featureTokens,
  feeding,
  headsOwnRow,
  headTokens,
  isCaused,
  lensTile,
  lineOf,
  moved,
  neurons,
  nextTokens,
  pairing,
  pairs,
  scores,
  segments,
  sideOf,
  TALL,
  thumbnails,
  tileAt,
  tokens,
  WIDE,
} from "./questions";
import type { Scene } from "./scene";
import type { Selected } from "./selectable";
import { isInside, scoreIn } from "./target";

const upTo = (count: number): number[] => Array.from({ length: Math.max(0, count) }, (_, at) => at);

/** The requests of the charts, which every view needs. */
export function charts(shown: Selected): Ask[] {
  return [{ kind: "describe" }, tokens(shown), ...BYS.map((by) => contributions(shown, by))];
}

/** The requests for the values by which the charts are coloured and ranked. */
export function choices({ shown, facts }: Pick<Scene, "shown" | "facts">): Ask[] {
  return [
    ...[nextTokens(shown) ?? []].flat(),
    ...(shown.score === null ? [] : [scores(shown, shown.score)]),
    ...(shown.ranking === "neurons" ? [neurons(shown)] : []),
    ...(shown.feeds === null ? [] : [feeding(shown, shown.feeds)]),
    ...[segments(shown, facts) ?? []].flat(),
    ...BYS.flatMap((by) => comparison(shown, by) ?? []),
    ...[pairing(shown) ?? []].flat(),
    ...(isCaused(shown) ? [effects(shown, "heads")] : []),
  ];
}

/** The requests for the attention of heads; for long prompts, also for the row of the destination. */
export function cards({ shown, facts, destination }: Scene, heads: string[]): Ask[] {
  const line = lineOf(facts.positions, destination);
  return heads
    .flatMap((head) => [
      attention(shown, head, shown.weighting) ?? [],
      line.rows ? (attention(shown, head, shown.weighting, line) ?? []) : [],
    ])
    .flat();
}

/** The requests for the thumbnails of all heads. */
export function inSmall({ shown, facts }: Scene): Ask[] {
  return upTo(facts.layers).map((layer) => thumbnails(shown, layer));
}

/** The requests for the combined attention of all heads: of the model, and of each layer. */
export function inOne({ shown, facts, destination }: Scene): Ask[] {
  const line = lineOf(facts.positions, destination ?? 0);
  return [null, ...upTo(facts.layers)].map((layer) => blend(shown, layer, shown.weighting, line));
}

/** The requests for the token lens, in tiles. */
export function lensTiles({ shown, facts: { positions } }: Scene, rows: readonly Component[]): Ask[] {
  const points = rows.map(({ label }) => label);
  return upTo(Math.ceil(points.length / TALL)).flatMap((row) =>
    upTo(Math.ceil(positions / WIDE)).map((column) => lensTile(shown, tileAt(points, positions, row, column))),
  );
}

/** The requests of the tab "why": what a target inside the model is made of, and what its head writes. */
export function whyOf(shown: Selected, last: number | null, parallel: readonly number[]): Ask[] {
  const tokens = headTokens(shown) ?? [];
  if (!scoreIn(shown.target))
    return isInside(shown.target) ? [contributions(shown, "head"), headsOwnRow(shown) ?? [], tokens].flat() : [];
  if (shown.why === "pairs") return [pairs(shown), tokens].flat();
  return [sideOf(shown, "query") ?? [], sideOf(shown, "key") ?? [], moved(shown, last, parallel) ?? [], tokens].flat();
}

/** The features of the shown SAE, and the activations of the chosen feature; empty if no SAE is known. */
export function featuresOf(shown: Selected, saes: CacheFacts["saes"]): Ask[] {
  return saes?.length ? [features(shown, saes) ?? [], featureTokens(shown, saes) ?? []].flat() : [];
}

// How a snapshot treats each kind of request. If a kind is missing here, the code does not compile.
import type { Ask, Kind } from "../wire/client";
import type { Shown } from "../wire/protocol.gen";

type Of<K extends Kind> = Extract<Ask, { kind: K }>;

interface Request<K extends Kind> {
  /** Whether replies are recorded, and accepted from a notebook. Code, pages and failures are never recorded. */
  readonly recorded: boolean;
  /** Whether the views need the reply: without it, the numbers on screen would belong to another selection. */
  readonly needed: boolean;
  /**
   * Names what is missing if a snapshot lacks the reply; null if it has no name. `shown` is the selection on screen.
   * `place` names the prompt, position or target of the request, if it is not the one on screen.
   */
  readonly words: (ask: Of<K>, shown: Shown, place: string | null) => string | null;
}

const unnamed = (): null => null;

export const REQUESTS = {
  describe: { recorded: true, needed: false, words: unnamed },
  tokens: { recorded: true, needed: true, words: unnamed },
  attribute: {
    recorded: true,
    needed: true,
    words: ({ by }, _, place) => (place === null && by === "accumulated" ? "this form of the logit lens" : null),
  },
  compare: { recorded: true, needed: true, words: () => "this comparison" },
  "compare-attention": {
    recorded: true,
    needed: false,
    words: ({ layer, head }) => `the attention of L${layer}H${head} in two runs`,
  },
  "compare-token-lens": { recorded: true, needed: true, words: () => "this part of the token lens of two runs" },
  pairing: { recorded: true, needed: false, words: unnamed },
  effects: {
    recorded: true,
    needed: true,
    words: ({ of }) => (of === "stream" ? "the effects of the stream" : "the measured effects of the heads"),
  },
  without: { recorded: false, needed: false, words: () => "a run without some heads" },
  attention: {
    recorded: true,
    needed: false,
    words: ({ layer, head, rows, columns, weighting = "pattern" }, shown) =>
      rows || columns
        ? `the single cells of L${layer}H${head}`
        : `the attention of L${layer}H${head}${weighting === shown.weighting ? "" : " in this weighting"}`,
  },
  thumbnails: { recorded: true, needed: true, words: ({ layer }) => `the thumbnails of layer ${layer}` },
  blend: {
    recorded: true,
    needed: true,
    words: ({ layer }) => (layer === null ? "all heads combined" : `the combined heads of layer ${layer}`),
  },
  neurons: {
    recorded: true,
    needed: true,
    words: ({ layer = null }) => (layer === null ? "the neurons of all layers" : `the neurons of layer ${layer}`),
  },
  scores: { recorded: true, needed: true, words: () => "this score" },
  positions: { recorded: true, needed: true, words: () => "this position map" },
  "token-lens": { recorded: true, needed: true, words: () => "this part of the token lens" },
  "next-tokens": { recorded: true, needed: true, words: () => "how each token was predicted" },
  pairs: { recorded: true, needed: true, words: () => "this pair map" },
  "head-tokens": {
    recorded: true,
    needed: false,
    words: ({ layer, head }) => `the tokens that L${layer}H${head} writes`,
  },
  segments: { recorded: true, needed: true, words: () => "these segments" },
  "segment-map": {
    recorded: true,
    needed: false,
    words: ({ layer, head }) => `which segments L${layer}H${head} reads`,
  },
  "segment-heads": { recorded: true, needed: false, words: () => "the heads that read this segment" },
  features: { recorded: true, needed: true, words: () => "these features" },
  "feature-tokens": {
    recorded: true,
    needed: false,
    words: ({ feature }) => `the activations of feature ${feature}`,
  },
  "feature-target": { recorded: false, needed: false, words: () => "what a feature reads" },
  suggest: { recorded: false, needed: false, words: () => "the model’s predictions" },
  check: { recorded: false, needed: false, words: () => "the model’s tokens" },
  answers: { recorded: false, needed: false, words: () => "the notebook’s variables" },
  resolve: { recorded: false, needed: false, words: () => "the notebook’s variables" },
  code: { recorded: false, needed: false, words: () => "the code for this" },
  page: { recorded: false, needed: false, words: () => "a page of this" },
  chapter: { recorded: false, needed: false, words: () => "this chapter" },
  target: { recorded: false, needed: false, words: unnamed },
  caches: { recorded: false, needed: false, words: unnamed },
  presence: { recorded: false, needed: false, words: unnamed },
  "give-up": { recorded: false, needed: false, words: unnamed },
} as const satisfies { [K in Kind]: Request<K> };

type Table = typeof REQUESTS;
export type RecordedKind = { [K in Kind]: Table[K]["recorded"] extends true ? K : never }[Kind];

export function isRecorded(kind: string): kind is RecordedKind {
  return Object.hasOwn(REQUESTS, kind) && REQUESTS[kind as Kind].recorded;
}

/** Names the data that a request is for; null if it has no name. */
export function wordsFor<K extends Kind>(ask: Of<K>, shown: Shown, place: string | null): string | null {
  const table: { [N in Kind]: Request<N> } = REQUESTS;
  return table[ask.kind as K].words(ask, shown, place);
}

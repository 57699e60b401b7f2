// What a picture of a panel makes of each kind of request: the one registry. A kind that is missing here does not compile.
import type { Ask, Kind } from "../wire/client";
import type { Shown } from "../wire/protocol.gen";

type Of<K extends Kind> = Extract<Ask, { kind: K }>;

interface Request<K extends Kind> {
  /** Whether its answers are kept of a live panel, and taken from a notebook: figures, never code, a page or a refusal. */
  readonly recorded: boolean;
  /** Whether there would be figures on screen without it that are not of what is selected. */
  readonly needed: boolean;
  /** What is not held where its answer is not; null: nothing that needs a name. `place` is where else it is about. */
  readonly words: (ask: Of<K>, good: Shown, place: string | null) => string | null;
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
  attention: {
    recorded: true,
    needed: false,
    words: ({ layer, head, rows, columns, weighting = "pattern" }, good) =>
      rows || columns
        ? `the single tokens in L${layer}H${head}`
        : `the attention of L${layer}H${head}${weighting === good.weighting ? "" : " so weighted"}`,
  },
  thumbnails: { recorded: true, needed: true, words: ({ layer }) => `the heads of layer ${layer} in small` },
  blend: {
    recorded: true,
    needed: true,
    words: ({ layer }) => (layer === null ? "all heads in one" : `the heads of layer ${layer} in one`),
  },
  neurons: {
    recorded: true,
    needed: true,
    words: ({ layer = null }) => (layer === null ? "the neurons of all layers" : `the neurons of layer ${layer}`),
  },
  scores: { recorded: true, needed: true, words: () => "this score" },
  positions: { recorded: true, needed: true, words: () => "this map of positions" },
  "token-lens": { recorded: true, needed: true, words: () => "this part of the token lens" },
  suggest: { recorded: false, needed: false, words: () => "the model’s predictions" },
  check: { recorded: false, needed: false, words: () => "the model’s tokens" },
  answers: { recorded: false, needed: false, words: () => "the notebook’s variables" },
  resolve: { recorded: false, needed: false, words: () => "the notebook’s variables" },
  code: { recorded: false, needed: false, words: () => "the code for this" },
  page: { recorded: false, needed: false, words: () => "a page of this" },
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

/** What a request is called. */
export function wordsFor<K extends Kind>(ask: Of<K>, good: Shown, place: string | null): string | null {
  const table: { [N in Kind]: Request<N> } = REQUESTS;
  return table[ask.kind as K].words(ask, good, place);
}

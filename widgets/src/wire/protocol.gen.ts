// Generated from py_backend/residscope/wire/protocol.py by `npm run protocol`. Do not edit.

export type Wire = Question | Answer;

/**
 * A request in its envelope. `cache` says which one is meant, where the channel carries requests about several.
 *
 *     A request about a cache that was changed since is refused (`changed`), so that no picture is put together from two
 *     states. Weights that were changed since are told in a note: a model may be in training while it is looked at.
 */
export interface Question {
  id: string;
  ask:
    | Describe
    | ReadTokens
    | Attribute
    | ReadAttention
    | ReadThumbnails
    | BlendAttention
    | ScoreHeads
    | MapPositions
    | ReadTokenLens
    | RankNeurons
    | Suggest
    | CheckToken
    | ChooseTarget
    | FindAnswers
    | ResolveAnswers
    | WriteCode
    | WritePage
    | ListCaches
    | Presence
    | GiveUp;
  cache?: CacheRef | null;
}
/**
 * The facts of the cache.
 */
export interface Describe {
  kind: "describe";
  padding?: "found" | "none";
}
/**
 * The tokens of one prompt, or what all prompts have in common.
 */
export interface ReadTokens {
  kind: "tokens";
  prompt?: number | null;
  padding?: "found" | "none";
}
/**
 * One decomposition, for one prompt or averaged; buffer 0 of the reply is float32 [component].
 *
 *     In the mean over several prompts buffer 1 is the standard deviation, float32 [component]. Unless there are too many
 *     figures (`per_prompt`) buffer 2 is what each prompt has, float32 [component, prompt], and buffer 3 each prompt's
 *     constant, float32 [prompt].
 */
export interface Attribute {
  kind: "attribute";
  by: "accumulated" | "head" | "layer";
  target: Target;
  prompt?: number | null;
  position?: number | "last";
  norm?: "frozen" | "recomputed";
  padding?: "found" | "none";
}
/**
 * What is attributed: one contrast for all prompts, or one for each; or a direction that the kernel holds.
 *
 *     `own` says that nobody chose it: it is the model's own two top predictions.
 */
export interface Target {
  /**
   * @maxItems 65536
   */
  contrasts: Contrast[];
  direction?: string | null;
  own?: boolean;
}
/**
 * Mean logit of `answer` minus mean logit of `distractor` (no distractor: the plain logit of `answer`).
 */
export interface Contrast {
  /**
   * @maxItems 10000
   */
  answer: Token[];
  /**
   * @maxItems 10000
   */
  distractor: Token[];
}
/**
 * One entry of the model's vocabulary.
 */
export interface Token {
  id: number;
  text: string;
}
/**
 * Where a head looks, and what each source brings to the target. The reply says which buffers there are.
 *
 *     `"pattern"` is always there, and the map of the weighting asked for; `"contribution"` also where it is small. Only
 *     some destinations (`rows`) and sources (`columns`) are computed where they are named. What has more cells than
 *     travel (512 × 512, or as many) comes down-sampled, `step` × `step` cells in one: `pool` says how. One destination,
 *     or one source, never does.
 */
export interface ReadAttention {
  kind: "attention";
  layer: number;
  head: number;
  target: Target;
  prompt?: number | null;
  position?: number | "last";
  weighting?: "contribution" | "pattern" | "value";
  rows?: Span | null;
  columns?: Span | null;
  pool?: "mean" | "peak";
  padding?: "found" | "none";
}
/**
 * Positions from `start` up to, not including, `stop`.
 */
export interface Span {
  start: number;
  stop: number;
}
/**
 * All heads of a layer, each at most `side` cells wide (the cell that is farthest from zero stands for its block).
 *
 *     Buffer 0 is int8 [head, side, side], in 127ths of each head's `limits`.
 */
export interface ReadThumbnails {
  kind: "thumbnails";
  layer: number;
  target: Target;
  prompt?: number | null;
  weighting?: "contribution" | "pattern" | "value";
  side?: number;
  padding?: "found" | "none";
}
/**
 * The mean over all heads of a layer (None: of the model); of contributions, the sum.
 *
 *     Buffer 0 is what `part` says, in units of its `scale`. `rows` and `columns` are those of `ReadAttention`.
 */
export interface BlendAttention {
  kind: "blend";
  layer: number | null;
  target: Target;
  prompt?: number | null;
  weighting?: "contribution" | "pattern" | "value";
  rows?: Span | null;
  columns?: Span | null;
  padding?: "found" | "none";
}
/**
 * How much each head is of a known kind; buffer 0 is float32 [layer × head], NaN where it cannot be determined.
 */
export interface ScoreHeads {
  kind: "scores";
  score: "copying" | "duplicate" | "entropy" | "first" | "induction" | "previous";
  prompt?: number | null;
  padding?: "found" | "none";
}
/**
 * What each component adds at each position, to the target there; buffer 0 is float32 [component, position].
 *
 *     `heads` names the rows of `by="head"`. Buffer 1 is float32 [position], the model's own figure (NaN: not known).
 */
export interface MapPositions {
  kind: "positions";
  by: "accumulated" | "head" | "layer";
  target: Target;
  prompt?: number | null;
  norm?: "frozen" | "recomputed";
  /**
   * @maxItems 16384
   */
  heads?: string[];
  padding?: "found" | "none";
}
/**
 * The likeliest tokens at some points of the stream (`"3_pre"`, `"3_mid"`, `"final_post"`), for some positions.
 *
 *     In the mean over prompts probabilities are averaged.
 */
export interface ReadTokenLens {
  kind: "token-lens";
  /**
   * @maxItems 4096
   */
  points: string[];
  start: number;
  stop: number;
  target: Target;
  k?: number;
  prompt?: number | null;
  norm?: "frozen" | "recomputed";
  padding?: "found" | "none";
}
/**
 * The strongest MLP neurons of one layer (None: of all), k each way; buffer 0 is float32 [component].
 */
export interface RankNeurons {
  kind: "neurons";
  target: Target;
  layer?: number | null;
  k?: number;
  prompt?: number | null;
  position?: number | "last";
  padding?: "found" | "none";
}
/**
 * The model's own top predictions at a position.
 */
export interface Suggest {
  kind: "suggest";
  prompt?: number | null;
  position?: number | "last";
  k?: number;
  padding?: "found" | "none";
}
/**
 * Is this text one token of the model?
 */
export interface CheckToken {
  kind: "check";
  text: string;
  padding?: "found" | "none";
}
/**
 * What to attribute where nobody has said: the model's own two top predictions at each prompt's last token.
 */
export interface ChooseTarget {
  kind: "target";
  padding?: "found" | "none";
}
/**
 * What lies in the kernel that fits as a target of this cache: variables, and what an inline panel of it has.
 */
export interface FindAnswers {
  kind: "answers";
  padding?: "found" | "none";
}
/**
 * The target that one of these is: a variable, by the name under which it was listed, or (None) the panel's.
 */
export interface ResolveAnswers {
  kind: "resolve";
  name?: string | null;
  padding?: "found" | "none";
}
/**
 * The Python code that gives exactly what one picture shows.
 */
export interface WriteCode {
  kind: "code";
  picture: "attention" | "heads" | "layers" | "lens" | "positions" | "prompts" | "ranking" | "token-lens";
  shown: Shown;
  padding?: "found" | "none";
}
/**
 * All that is selected in a view: what its pictures are pictures of.
 */
export interface Shown {
  target: Target;
  prompt?: number | null;
  position?: number | "last";
  /**
   * @maxItems 16384
   */
  heads?: string[];
  norm?: "frozen" | "recomputed";
  top_k?: number;
  ranking?: "heads" | "neurons";
  layer?: number | null;
  weighting?: "contribution" | "pattern" | "value";
  score?: ("copying" | "duplicate" | "entropy" | "first" | "induction" | "previous") | null;
  tab?: "attention" | "positions" | "prompts" | "token-lens";
  presentation?: "all" | "matrix" | "text";
  by?: "accumulated" | "head" | "layer";
  padding?: "found" | "none";
}
/**
 * The view as a stand-alone HTML page; buffer 0 of the reply is its text, UTF-8.
 */
export interface WritePage {
  kind: "page";
  shown: Shown;
  holds?: "all" | "heads" | "view";
  padding?: "found" | "none";
}
/**
 * Every `ActivationCache` that the user's namespace reaches: variables, and two levels into containers.
 */
export interface ListCaches {
  kind: "caches";
  padding?: "found" | "none";
}
/**
 * An inline panel's view tells that it is on a page, no more on it, or that its page goes away (a reload).
 */
export interface Presence {
  kind: "presence";
  view: string;
  state: "away" | "hidden" | "shown";
  padding?: "found" | "none";
}
/**
 * The answer to an earlier question, by its id, is not wanted any more.
 */
export interface GiveUp {
  kind: "give-up";
  id: string;
  padding?: "found" | "none";
}
/**
 * One cache of a kernel, as it was.
 *
 *     `state` is `CACHE.WEIGHTS.ADDED`: each part changes whenever the activations, the model's weights, or what was added
 *     to the cache do.
 */
export interface CacheRef {
  id: string;
  state: string;
}
/**
 * A reply in its envelope: exactly one of `reply` and `failure`.
 */
export interface Answer {
  id: string;
  reply?:
    | (
        | CacheFacts
        | TokensReply
        | AttributionReply
        | AttentionReply
        | ThumbnailsReply
        | BlendReply
        | ScoresReply
        | PositionsReply
        | TokenLensReply
        | NeuronsReply
        | Suggestions
        | TokenCheck
        | TargetReply
        | AnswersReply
        | ResolvedReply
        | CodeReply
        | PageReply
        | CachesReply
        | PresenceReply
        | GivenUp
        | Working
      )
    | null;
  failure?: Failure | null;
}
/**
 * Facts of the cache and its model.
 *
 *     `last` is the last real position of each prompt, `points` are those of the residual stream that were cached.
 *     `padding` tokens were treated as padding: `last` and these are what was found, whatever a request counts as real.
 */
export interface CacheFacts {
  kind: "describe";
  name: string;
  model: string;
  layers: number;
  heads: number;
  prompts: number;
  positions: number;
  dtype: string;
  device: string;
  bytes: number;
  missing: string[];
  last: number[];
  has_tokens: boolean;
  padding?: number;
  points?: ComponentTable;
}
/**
 * Components as columns, as they travel and are kept: thousands of rows are a few numbers each.
 *
 *     Attributes:
 *         kinds: The kinds that occur.
 *         kind: For each component, which one of `kinds` it is.
 *         layer: For each component, its layer.
 *         index: For each component, its index.
 */
export interface ComponentTable {
  kinds: (
    | "attn_bias"
    | "attn_out"
    | "embed"
    | "final_post"
    | "head"
    | "layer_out"
    | "mid"
    | "mixer_out"
    | "mlp_bias"
    | "mlp_out"
    | "neuron"
    | "per_layer_out"
    | "pos_embed"
    | "pre"
    | "source"
  )[];
  kind: number[];
  layer: (number | null)[];
  index: (number | null)[];
}
/**
 * The tokens of a prompt, a label per position.
 */
export interface TokensReply {
  kind: "tokens";
  tokens: TokenLabel[];
}
/**
 * A token at a position. Where prompts differ, `text` is empty and `varies` lists some of what stands there.
 */
export interface TokenLabel {
  text: string;
  id?: number | null;
  varies?: string[];
  padding?: boolean;
}
/**
 * A decomposition: Σ rows + constant + unexplained = measured (for `accumulated` the last row, not the sum).
 *
 *     For `head` the first layers × heads rows are the map; NaN where a layer has no attention heads. Where none has,
 *     `refusal` says why, and the rows are the layers'.
 *
 *     `missing` says which kinds of rows were not cached ("MLPs"): then the rows are exact, but not complete.
 *     `own` says whether `measured` is the model's own output, or only what the final stream in the cache gives.
 *     `worst` is the largest gap of any prompt. It, `measured` and `unexplained` are None where the cache has nothing to
 *     measure against.
 */
export interface AttributionReply {
  kind: "attribute";
  by: "accumulated" | "head" | "layer" | "neuron" | "source";
  components: ComponentTable;
  measured: number | null;
  constant: number;
  unexplained: number | null;
  worst: number | null;
  tolerance: number;
  measured_from: string;
  own: boolean;
  prompts: number;
  notes: string[];
  refusal?: string | null;
  per_prompt?: boolean;
  missing?: string[];
}
/**
 * Attention of one head (mean over prompts when none was named).
 *
 *     Its maps have ⌈rows / step⌉ × ⌈columns / step⌉ figures (None: all positions), each for `step` × `step` cells.
 */
export interface AttentionReply {
  kind: "attention";
  layer: number;
  head: number;
  positions: number;
  parts: AttentionBuffer[];
  notes: string[];
  rows?: Span | null;
  columns?: Span | null;
  step?: number;
  pool?: "mean" | "peak";
}
/**
 * What one buffer holds: a map [destination, source] in units of `scale`, or one row of it, float32 [source].
 *
 *     A map is float16, or float32 where it is `wide`; of a `triangle` only what stands at and below the diagonal travels,
 *     row by row: the rest is 0. `"value"` is attention × ‖v W_O‖, `"contribution"` what the source adds to the target at
 *     the destination, in logits. At the destination that was asked for (in the mean: at each prompt's own) `"reads"` is
 *     the row of the pattern, `"brings"` that of the contribution.
 */
export interface AttentionBuffer {
  what: "brings" | "contribution" | "pattern" | "reads" | "value";
  scale?: number;
  wide?: boolean;
  triangle?: boolean;
}
/**
 * All heads of a layer in small. `limits` is each head's largest absolute value; `side` × `side` cells each.
 *
 *     A limit is None where there is no such attention: the layer has fewer heads, or none, or it was not cached, or what
 *     it brings cannot be determined (`notes` say which). The cells are 0 there.
 */
export interface ThumbnailsReply {
  kind: "thumbnails";
  layer: number;
  side: number;
  positions: number;
  limits: (number | null)[];
  notes: string[];
}
/**
 * Many heads' attention in one; for `rows`, `columns` and `step` see `AttentionReply`.
 */
export interface BlendReply {
  kind: "blend";
  positions: number;
  heads: number;
  part: AttentionBuffer;
  notes: string[];
  rows?: Span | null;
  columns?: Span | null;
  step?: number;
}
/**
 * A score for each head. `meaning` says in a sentence what it measures, `low` and `high` end its scale.
 */
export interface ScoresReply {
  kind: "scores";
  score: "copying" | "duplicate" | "entropy" | "first" | "induction" | "previous";
  meaning: string;
  low: number;
  high: number;
  notes: string[];
}
/**
 * A map component × position; Σ rows + constant = the model's own figure (for `accumulated` the last row).
 *
 *     `missing` says which kinds of rows were not cached: then the others do not add up to it.
 */
export interface PositionsReply {
  kind: "positions";
  by: "accumulated" | "head" | "layer" | "neuron" | "source";
  components: ComponentTable;
  positions: number;
  notes: string[];
  missing?: string[];
}
/**
 * A window of the token lens: `cells[point][position - start]`.
 */
export interface TokenLensReply {
  kind: "token-lens";
  points: string[];
  start: number;
  cells: LensCell[][];
  notes: string[];
}
/**
 * The likeliest tokens at one point and position; the answer's probability and rank there (1 is the likeliest).
 */
export interface LensCell {
  tokens: string[];
  probabilities: number[];
  answer?: number | null;
  rank?: number | null;
}
/**
 * The strongest neurons, positive before negative, strongest first.
 *
 *     Over all `count` neurons of `layers` layers: Σ neurons = `total`; with their `bias` that is what their MLPs add.
 */
export interface NeuronsReply {
  kind: "neurons";
  components: ComponentTable;
  count: number;
  layers: number;
  total: number;
  bias: number;
  notes: string[];
}
/**
 * The model's top predictions, likeliest first.
 */
export interface Suggestions {
  kind: "suggest";
  predictions: Prediction[];
}
/**
 * A token that the model predicts, with its probability (mean over prompts when none was named).
 */
export interface Prediction {
  token: Token;
  probability: number;
}
/**
 * How a text is tokenised; `single` when it is exactly one token, else `message` says why not.
 */
export interface TokenCheck {
  kind: "check";
  text: string;
  tokens: Token[];
  single: boolean;
  message: string;
  suggestions: Token[];
}
/**
 * What to attribute.
 */
export interface TargetReply {
  kind: "target";
  target: Target;
}
/**
 * What fits, in the namespace's order; `panel` says in words what an inline panel's target is, if there is one.
 */
export interface AnswersReply {
  kind: "answers";
  variables: Variable[];
  panel: string | null;
  notes: string[];
}
/**
 * A variable that fits as answers, by what one would write to get it; `words` say what it is, `[8, 2] ids`.
 */
export interface Variable {
  name: string;
  words: string;
}
/**
 * What to attribute, and what a reader should know of how the answers were read.
 */
export interface ResolvedReply {
  kind: "resolve";
  name: string | null;
  target: Target;
  notes: string[];
}
/**
 * Python code.
 */
export interface CodeReply {
  kind: "code";
  code: string;
}
/**
 * A page; `name` is what to call its file.
 */
export interface PageReply {
  kind: "page";
  name: string;
}
/**
 * All caches, in the namespace's order. `kernel` differs after every restart; `notes` say what was left out.
 */
export interface CachesReply {
  kind: "caches";
  kernel: string;
  caches: CacheRow[];
  notes: string[];
}
/**
 * One cache that the namespace reaches, read off metadata alone.
 *
 *     `names` are all the ways to it (`cache`, `runs["clean"]`), plain variables first. `age` is in seconds since
 *     Residscope first saw it; `changed` and `weights_changed` say what has happened to it and to its model's weights
 *     since then. `problem` says why it cannot be inspected.
 */
export interface CacheRow {
  ref: CacheRef;
  names: string[];
  model: string;
  layers: number;
  heads: number;
  prompts: number;
  positions: number;
  dtype: string;
  device: string;
  bytes: number;
  missing: string[];
  age: number;
  changed?: boolean;
  weights_changed?: boolean;
  problem?: string | null;
}
/**
 * Noted.
 */
export interface PresenceReply {
  kind: "presence";
}
/**
 * Nobody works on it any more.
 */
export interface GivenUp {
  kind: "give-up";
}
/**
 * Not yet: so many parts of `total` are done (0 where that is not known). Ask again, with the same id.
 */
export interface Working {
  kind: "working";
  done: number;
  total: number;
}
/**
 * Why a request could not be answered: a stable code, and a sentence that names the remedy.
 */
export interface Failure {
  code: string;
  message: string;
}

/** What tells one wire from another: `residscope.wire.protocol.wire()` of the kernel that understands this. */
export const WIRE = "267e97b966aa";

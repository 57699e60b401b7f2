// Generated from py_backend/residscope/wire/protocol.py by `npm run protocol`. Do not edit.

export type Wire = Question | Answer;

/**
 * A request in its envelope. `cache` says which cache is meant, if the channel serves several.
 *
 *     `gives_turns` says that the view makes the kernel take the turns in which the model is run (`EffectsReply.turn`). If
 *     not, the kernel takes a turn while it answers such a request, if no cell is running.
 *
 *     A request about a cache that was changed since then is refused (`changed`), so that no picture mixes two states. If
 *     only the weights were changed, a note says so, because a model may be in training while it is inspected.
 */
export interface Question {
  id: string;
  ask:
    | Describe
    | ReadTokens
    | Attribute
    | Compare
    | CompareAttention
    | MeasureEffects
    | RunWithout
    | ReadAttention
    | ReadThumbnails
    | BlendAttention
    | ScoreHeads
    | MapPositions
    | ReadTokenLens
    | RankNeurons
    | ReadPairs
    | ReadHeadTokens
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
  gives_turns?: boolean;
}
/**
 * Facts about the cache.
 */
export interface Describe {
  kind: "describe";
  padding?: "found" | "none";
}
/**
 * The tokens of one prompt, or those that all prompts have in common.
 */
export interface ReadTokens {
  kind: "tokens";
  prompt?: number | null;
  padding?: "found" | "none";
}
/**
 * One decomposition, for one prompt or averaged; buffer 0 of the reply is float32 [component].
 *
 *     For the mean over several prompts, buffer 1 is the standard deviation, float32 [component]. Unless there are too
 *     many values (`per_prompt`), buffer 2 has the rows of each prompt, float32 [component, prompt], and buffer 3 the
 *     constant of each prompt, float32 [prompt].
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
 * What is attributed: one contrast for all prompts, or one for each; or the key of a direction in the kernel.
 *
 *     Attributes:
 *         contrasts: Contrasts of logits; empty if the target is another one.
 *         direction: The key of a direction at the output of the final norm.
 *         own: Whether it is the default, made from the model's own two top predictions.
 *         inner: A target inside the model, instead of logits.
 *         next_token: At each position the token that follows it, instead of the same contrasts at all of them.
 *         through: What heads contribute to the target, each by what it reads from one source: the first head writes to
 *             the target itself, each other one to what the head before it reads at its source.
 */
export interface Target {
  /**
   * @maxItems 65536
   */
  contrasts: Contrast[];
  direction?: string | null;
  own?: boolean;
  inner?: (AttentionScore | NeuronInput | StreamDirection) | null;
  /**
   * @maxItems 64
   */
  through?: Through[];
  next_token?: NextToken | null;
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
 * The attention score of a head from a destination to a source, read by its query or by its key.
 */
export interface AttentionScore {
  kind: "attention";
  layer: number;
  head: number;
  destination: number | "last";
  source: number;
  versus?: number | ("mean" | "most") | null;
  side?: "key" | "query";
}
/**
 * What an MLP neuron reads, before its activation function.
 */
export interface NeuronInput {
  kind: "neuron";
  layer: number;
  index: number;
  part?: "gate" | "pre" | "up";
}
/**
 * A direction at a point of the stream (`"8_pre"`, `"8_mid"`, `"final_post"`), by its key in the kernel.
 */
export interface StreamDirection {
  kind: "direction";
  key: string;
  at: string;
}
/**
 * A head, and the source that it reads. `source=None` is every source (only in Python, and only as the last).
 */
export interface Through {
  layer: number;
  head: number;
  source: number | null;
}
/**
 * At each position, the logit of the token that really follows it; each position has its own answer.
 *
 *     Attributes:
 *         versus: `"runner-up"`: minus the logit of the most likely other token there. None: the plain logit.
 */
export interface NextToken {
  versus?: "runner-up" | null;
}
/**
 * One decomposition of two runs. The buffers of the reply are float32 [component].
 *
 *     Buffer 0 has the values of the first run (the one that is shown), buffer 1 those of the second. Their difference,
 *     second minus first, is buffer 2 plus buffer 3: what was written differently, and how it is read differently.
 */
export interface Compare {
  kind: "compare";
  by: "accumulated" | "head" | "layer";
  target: Target;
  against: Against;
  prompt?: number | null;
  position?: number | "last";
  norm?: "frozen" | "recomputed";
  padding?: "found" | "none";
}
/**
 * The run that the shown one is compared with: another prompt, another cache, or the same run without some heads.
 *
 *     Attributes:
 *         cache: The other cache, by its name in the user's namespace (`runs["clean"]`); None: the same cache.
 *         prompt: Its prompt. None (only of another cache): the prompt that is shown, or the mean if that is shown.
 *         without: Heads (`"L23H3"`). If there are any, the other run is this cache's, with them replaced.
 *         replaced_by: What takes the place of their output.
 */
export interface Against {
  cache?: string | null;
  prompt?: number | null;
  /**
   * @maxItems 64
   */
  without?: string[];
  replaced_by?: "mean" | "zero";
}
/**
 * The attention pattern of one head in two runs, and their difference; the reply lists its three buffers.
 *
 *     The maps are down-sampled as in `ReadAttention`. Of the difference, each block shows its cell farthest from zero.
 */
export interface CompareAttention {
  kind: "compare-attention";
  layer: number;
  head: number;
  against: Against;
  prompt?: number | null;
  padding?: "found" | "none";
}
/**
 * What replacing heads, or the stream at one layer and position, does to the target in runs of the user's model.
 *
 *     Runs are made only in turns on the kernel's main thread, between cells. Each turn takes a moment. The reply has what
 *     is known so far, and is sent again until nothing is left. The buffers are float32 [layer × head], or [layer ×
 *     position] for the stream: the total effect, the direct effect, and the estimate of the total effect. NaN where a
 *     value is not known (yet). For `"zero"` and `"mean"` they are what the component adds: minus the change of the
 *     target. For `"other"` they are the change of the target.
 *
 *     Attributes:
 *         of: What is replaced.
 *         replaced_by: What takes its place.
 *         against: The compared run, for `"other"`.
 *         measure: Whether to go on measuring. False: only reply what is known.
 *         stop: Whether to make no more runs. With `measure`, this has no meaning.
 */
export interface MeasureEffects {
  kind: "effects";
  target: Target;
  of?: "heads" | "stream";
  replaced_by?: "mean" | "other" | "zero";
  against?: Against | null;
  prompt?: number | null;
  position?: number | "last";
  measure?: boolean;
  stop?: boolean;
  padding?: "found" | "none";
}
/**
 * Runs the model without some heads, so that `Compare` can compare this run. For turns see `MeasureEffects`.
 */
export interface RunWithout {
  kind: "without";
  against: Against;
  padding?: "found" | "none";
}
/**
 * The attention of one head, and its source contributions. The reply lists its buffers.
 *
 *     The reply always contains `"pattern"` and the map of the requested weighting, and also `"contribution"` if it is
 *     small. `rows` and `columns` limit the map to some destinations and sources. A map with more than 512 × 512 cells is
 *     down-sampled: each block of `step` × `step` cells becomes one, in the way that `pool` says. A single destination or
 *     source is never down-sampled.
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
 * Positions from `start` up to, but not including, `stop`.
 */
export interface Span {
  start: number;
  stop: number;
}
/**
 * All heads of a layer, each at most `side` cells wide (each block shows its cell farthest from zero).
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
 * The mean over all heads of a layer (None: of the model); for contributions, the sum.
 *
 *     `part` describes buffer 0. `rows` and `columns` are as in `ReadAttention`.
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
 * A score of each head; buffer 0 is float32 [layer × head], NaN if it cannot be determined.
 */
export interface ScoreHeads {
  kind: "scores";
  score: "copying" | "duplicate" | "entropy" | "first" | "induction" | "previous";
  prompt?: number | null;
  padding?: "found" | "none";
}
/**
 * The contribution of each component at each position, to the target there.
 *
 *     `heads` names the rows of `by="head"`. Buffer 0 is float32 [component, position].
 *     Buffer 1 is float32 [position], the measured value (NaN: not known).
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
 *     For the mean over prompts, probabilities are averaged.
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
 * The strongest MLP neurons of one layer (None: of all), k of each sign; buffer 0 is float32 [component].
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
 * The attention score of the target by pairs of components: the k strongest of its query side and its key side.
 *
 *     Buffer 0 of the reply is float32 [query + 1, key + 1]. The last row and the last column are all other components
 *     together, so the cells sum to the whole.
 */
export interface ReadPairs {
  kind: "pairs";
  target: Target;
  prompt?: number | null;
  k?: number;
  padding?: "found" | "none";
}
/**
 * The tokens that a head's output at a position raises and lowers most, and what its W_OV writes for one source.
 *
 *     `source=None` is the source that the head reads most there.
 */
export interface ReadHeadTokens {
  kind: "head-tokens";
  layer: number;
  head: number;
  prompt?: number | null;
  position?: number | "last";
  source?: number | null;
  k?: number;
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
 * Checks whether a text is one token of the model.
 */
export interface CheckToken {
  kind: "check";
  text: string;
  padding?: "found" | "none";
}
/**
 * The default target: the model's own two top predictions at each prompt's last token.
 */
export interface ChooseTarget {
  kind: "target";
  padding?: "found" | "none";
}
/**
 * Possible answers for this cache in the kernel: variables, and the target of an inline panel.
 */
export interface FindAnswers {
  kind: "answers";
  padding?: "found" | "none";
}
/**
 * The target for a variable, by its name in `AnswersReply`, or for the inline panel (None).
 */
export interface ResolveAnswers {
  kind: "resolve";
  name?: string | null;
  padding?: "found" | "none";
}
/**
 * Python code that computes exactly the values in one picture.
 */
export interface WriteCode {
  kind: "code";
  picture:
    "attention" | "heads" | "layers" | "lens" | "positions" | "prompts" | "ranking" | "runs" | "token-lens" | "why";
  shown: Shown;
  padding?: "found" | "none";
}
/**
 * Everything that is selected in a view, and so determines its pictures.
 *
 *     Attributes:
 *         trail: The steps from the first target to the last one that was asked. `trail[step]` is what is shown: its
 *             target is `target`. Empty if there is only one target.
 *         step: The place of the present step in the trail.
 *         why: What the tab "why" shows: the two sides of an attention score, or its pairs of components.
 *         feeds: Colours the head map by what feeds a head; None: not.
 *         against: The run that the shown one is compared with; None: no comparison.
 *         run: Which of the two runs the head map and the ranking show, or their difference.
 *         effect: Which effect of the heads the head map and the ranking show.
 *         replaced_by: What takes the place of a head's output in the runs that measure effects.
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
  tab?: "attention" | "positions" | "prompts" | "runs" | "token-lens" | "why";
  presentation?: "all" | "matrix" | "text";
  by?: "accumulated" | "head" | "layer";
  padding?: "found" | "none";
  /**
   * @maxItems 32
   */
  trail?: Step[];
  step?: number;
  why?: "pairs" | "sides";
  feeds?: Feeds | null;
  against?: Against | null;
  run?: "difference" | "first" | "second";
  effect?: "direct" | "estimate" | "indirect" | "total";
  replaced_by?: "mean" | "other" | "zero";
}
/**
 * A step of the trail: a target, and the position where it is read.
 */
export interface Step {
  target: Target;
  position?: number | "last";
}
/**
 * A colouring of the head map: which earlier heads feed one head, where it reads one source.
 *
 *     `by` says through what: the head's query or its key (what each head adds to its attention score), or its value (what
 *     each head adds to its source contribution).
 */
export interface Feeds {
  layer: number;
  head: number;
  source: number;
  by: "key" | "query" | "value";
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
 * Every `ActivationCache` in the user's namespace: in variables, and up to two levels deep in containers.
 */
export interface ListCaches {
  kind: "caches";
  padding?: "found" | "none";
}
/**
 * Reports that an inline panel's view is on a page, was removed from it, or that its page closes or reloads.
 */
export interface Presence {
  kind: "presence";
  view: string;
  state: "away" | "hidden" | "shown";
  padding?: "found" | "none";
}
/**
 * Cancels the job of an earlier request, by its id.
 */
export interface GiveUp {
  kind: "give-up";
  id: string;
  padding?: "found" | "none";
}
/**
 * One cache of a kernel, in one state.
 *
 *     `state` is `CACHE.WEIGHTS.ADDED`: these change with the activations, with the model's weights, and when something is
 *     added to the cache.
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
        | ComparisonReply
        | AttentionReply
        | AttentionComparisonReply
        | EffectsReply
        | WithoutReply
        | ThumbnailsReply
        | BlendReply
        | ScoresReply
        | PositionsReply
        | TokenLensReply
        | NeuronsReply
        | PairsReply
        | HeadTokensReply
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
 * Facts about the cache and its model.
 *
 *     `last` is the last real position of each prompt, `points` are the cached points of the residual stream. `padding` is
 *     the number of padding tokens that were found. It and `last` do not depend on the `padding` of the request.
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
 * Components as columns, for messages and files, where thousands of rows need only a few numbers each.
 *
 *     Attributes:
 *         kinds: The kinds that occur.
 *         kind: For each component, the place of its kind in `kinds`.
 *         layer: For each component, its layer.
 *         index: For each component, its index.
 */
export interface ComponentTable {
  kinds: (
    | "attn_bias"
    | "attn_out"
    | "biases"
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
    | "position_bias"
    | "pre"
    | "soft_cap"
    | "source"
  )[];
  kind: number[];
  layer: (number | null)[];
  index: (number | null)[];
}
/**
 * The tokens of a prompt, one label for each position.
 */
export interface TokensReply {
  kind: "tokens";
  tokens: TokenLabel[];
}
/**
 * A token at a position. If prompts differ there, `text` is empty and `varies` lists some of the tokens.
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
 *     For `head` the first layers × heads rows are the map; they are NaN in a layer without attention heads. If no layer
 *     has heads, `refusal` says why, and the rows are those of `layer`.
 *
 *     `missing` names the kinds of rows that were not cached ("MLPs"): then the rows are exact, but not complete.
 *     `own` says whether `measured` is the model's own output; if not, it was computed from the final stream in the cache.
 *     `worst` is the largest unexplained value of any prompt. `worst`, `measured` and `unexplained` are None if the cache
 *     has nothing to measure against. `inner` describes a target inside the model.
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
  inner?: InnerFacts | null;
}
/**
 * What a target inside the model is in this cache, for the prompt that is shown (the first, for the mean).
 *
 *     Attributes:
 *         point: The point of the stream that it is read from (`"23_pre"`): later components are not in it.
 *         destination: The position where it is read, or the destination of an attention score.
 *         source: The source, if it has one.
 *         versus: The source that it is compared with, if there is one.
 *         attention: The attention that the head pays to the source.
 *         versus_attention: The attention that it pays to the source that it is compared with.
 */
export interface InnerFacts {
  point: string;
  destination: number;
  source?: number | null;
  versus?: number | null;
  attention?: number | null;
  versus_attention?: number | null;
}
/**
 * Two runs row by row: of each, Σ rows + constant + unexplained = measured; their differences likewise.
 *
 *     For `head` and `missing` see `AttributionReply`. `read` is the sum of all that is read differently: the part of the
 *     measured difference that no component wrote. It includes the constant.
 */
export interface ComparisonReply {
  kind: "compare";
  by: "accumulated" | "head" | "layer" | "neuron" | "source";
  components: ComponentTable;
  first: RunSum;
  second: RunSum;
  difference: RunSum;
  read: number;
  prompts: number;
  notes: string[];
  refusal?: string | null;
  missing?: string[];
}
/**
 * What the rows of a run, or of the difference of two runs, add up to: see `AttributionReply`.
 *
 *     `tolerance` and `worst` are of the run; of a difference they are of both runs together.
 */
export interface RunSum {
  measured: number | null;
  constant: number;
  unexplained: number | null;
  worst: number | null;
  tolerance: number;
  measured_from: string;
  own: boolean;
}
/**
 * Attention of one head, in one prompt or averaged over prompts.
 *
 *     Its maps have ⌈rows / step⌉ × ⌈columns / step⌉ values (None: all positions), each for `step` × `step` cells.
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
 * Describes one buffer: a map [destination, source] in units of `scale`, or one row of it, float32 [source].
 *
 *     A map is float16, or float32 if it is `wide`. Of a `triangle` only the cells at and below the diagonal are sent, row
 *     by row; the others are 0. `"value"` is attention × ‖v W_O‖. `"contribution"` is the source contribution to the
 *     target at the destination, in logits. `"reads"` and `"brings"` are the rows of the pattern and of the contribution
 *     at the requested destination (for the mean over prompts, at each prompt's own).
 */
export interface AttentionBuffer {
  what: "brings" | "contribution" | "pattern" | "reads" | "value";
  scale?: number;
  wide?: boolean;
  triangle?: boolean;
}
/**
 * Attention of one head in two runs: `parts` describe the pattern of the first run, of the second, and B − A.
 *
 *     Each map has ⌈positions / step⌉² values.
 */
export interface AttentionComparisonReply {
  kind: "compare-attention";
  layer: number;
  head: number;
  positions: number;
  parts: AttentionBuffer[];
  notes: string[];
  step?: number;
}
/**
 * Effects so far; see `MeasureEffects`.
 *
 *     Attributes:
 *         of: What is replaced.
 *         state: Whether nothing is left to measure, more is (`waiting` for a turn), or measuring was stopped.
 *         turn: While it waits, what names the turn for `residscope.hosts.turns.take`.
 *         done: How many effects were measured.
 *         total: How many there are; 0 before that is known.
 *         before: The target in the unchanged run; None before it is known.
 *         replayed: How the unchanged run compares with the cache, in words; empty before it is known.
 *         replaced_by: What takes the place of the activation, in words.
 *         prompts: How many prompts the values are the mean of.
 *         notes: What to know about these numbers.
 */
export interface EffectsReply {
  kind: "effects";
  of: "heads" | "stream";
  state: "done" | "stopped" | "waiting";
  turn: string | null;
  done: number;
  total: number;
  before: number | null;
  replayed: string;
  replaced_by: string;
  prompts: number;
  notes: string[];
}
/**
 * Whether there is a run without these heads, and how its unchanged run compares with the cache.
 */
export interface WithoutReply {
  kind: "without";
  state: "done" | "waiting";
  turn: string | null;
  replayed: string;
  notes: string[];
}
/**
 * Thumbnails of all heads of a layer, `side` × `side` cells each; `limits` is each head's largest absolute value.
 *
 *     A limit is None if there is no such head, or it was not cached, or its source contributions cannot be determined
 *     (`notes` say why). Then its cells are 0.
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
 * The attention of many heads in one map; for `rows`, `columns` and `step` see `AttentionReply`.
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
 * A score for each head. `meaning` says in a sentence what it measures; `low` and `high` are its limits.
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
 * A map component × position; Σ rows + constant = the measured value (for `accumulated` the last row + constant).
 *
 *     `missing` names the kinds of rows that were not cached: then the other rows do not sum to it.
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
 * A range of positions of the token lens: `cells[point][position - start]`.
 */
export interface TokenLensReply {
  kind: "token-lens";
  points: string[];
  start: number;
  cells: LensCell[][];
  notes: string[];
}
/**
 * The likeliest tokens at one point and position, and the answer's probability and rank (1 is the likeliest).
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
 *     `total` is the sum over all `count` neurons of `layers` layers; `total` + `bias` is the contribution of their MLPs.
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
 * An attention score by pairs of components, the strongest of each side first.
 *
 *     `query_others` and `key_others` are the numbers of components in the last row and the last column. `measured` is the
 *     number that all cells sum to, as cached.
 */
export interface PairsReply {
  kind: "pairs";
  query: ComponentTable;
  key: ComponentTable;
  query_others: number;
  key_others: number;
  measured: number | null;
  notes: string[];
}
/**
 * What a head writes, in logits, through the final norm as cached.
 *
 *     `output_top` and `output_bottom` are of its output at the position; `source_top` and `source_bottom` are of W_OV
 *     applied to what it reads at `source`, without the attention that it pays to it.
 */
export interface HeadTokensReply {
  kind: "head-tokens";
  layer: number;
  head: number;
  source: number | null;
  output_top: TokenValue[];
  output_bottom: TokenValue[];
  source_top: TokenValue[];
  source_bottom: TokenValue[];
  notes: string[];
}
/**
 * A token, and what is added to its logit.
 */
export interface TokenValue {
  token: Token;
  value: number;
}
/**
 * The model's top predictions, likeliest first.
 */
export interface Suggestions {
  kind: "suggest";
  predictions: Prediction[];
}
/**
 * A token that the model predicts, with its probability (for one prompt, or averaged over prompts).
 */
export interface Prediction {
  token: Token;
  probability: number;
}
/**
 * How a text is tokenised. `single` says whether it is exactly one token; if not, `message` says why.
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
 * A target.
 */
export interface TargetReply {
  kind: "target";
  target: Target;
}
/**
 * Possible answers, in the namespace's order; `panel` describes the target of an inline panel, if there is one.
 */
export interface AnswersReply {
  kind: "answers";
  variables: Variable[];
  panel: string | null;
  notes: string[];
}
/**
 * A variable with possible answers, by the Python expression for it; `words` describe it, such as `[8, 2] ids`.
 */
export interface Variable {
  name: string;
  words: string;
}
/**
 * A target, and notes on how the answers were understood.
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
 * A page; `name` is the suggested name of its file.
 */
export interface PageReply {
  kind: "page";
  name: string;
}
/**
 * All caches, in the namespace's order. `kernel` changes at every restart; `notes` say what was left out.
 */
export interface CachesReply {
  kind: "caches";
  kernel: string;
  caches: CacheRow[];
  notes: string[];
}
/**
 * One cache in the namespace, described from metadata only.
 *
 *     `names` are all expressions for it (`cache`, `runs["clean"]`), plain variables first. `age` is the time in seconds
 *     since Residscope first saw it; `changed` and `weights_changed` say whether it and its model's weights were changed
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
 * Confirms a presence message.
 */
export interface PresenceReply {
  kind: "presence";
}
/**
 * Confirms that the job is cancelled.
 */
export interface GivenUp {
  kind: "give-up";
}
/**
 * The job is not finished: `done` of `total` steps are done (0: not known). Send the request again, with its id.
 */
export interface Working {
  kind: "working";
  done: number;
  total: number;
}
/**
 * Why a request could not be answered: a stable code, and a sentence that says what to do.
 */
export interface Failure {
  code: string;
  message: string;
}

/** What tells one wire from another: `residscope.wire.protocol.wire()` of the kernel that understands this. */
export const WIRE = "c07ab688f51d";

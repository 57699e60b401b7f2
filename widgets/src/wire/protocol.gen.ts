// Generated from py_backend/residscope/wire/protocol.py by `npm run protocol`. Do not edit.

export type Wire = Question | Answer;

/**
 * A request in its envelope. `cache` names the cache, if the channel serves several.
 *
 *     `gives_turns`: whether the view makes the kernel take the turns in which the model is run (`EffectsReply.turn`). If
 *     not, the kernel takes a turn while it answers a request that needs one, if no cell is running.
 *
 *     If the cache is no longer in the state that `cache` names, the request is refused (`changed`). So no picture mixes
 *     two states. If only the weights were changed, the reply has a note, because a model may be trained while it is
 *     inspected.
 */
export interface Question {
  id: string;
  ask:
    | ReadAttention
    | ReadThumbnails
    | BlendAttention
    | ScoreHeads
    | Describe
    | ReadTokens
    | ListCaches
    | MeasureEffects
    | RunWithout
    | Compare
    | CompareAttention
    | CompareTokenLens
    | PairPositions
    | Attribute
    | MapPositions
    | RankNeurons
    | ReadPairs
    | ReadFeatures
    | ReadFeatureTokens
    | ChooseFeature
    | ReadTokenLens
    | ReadNextTokens
    | ReadHeadTokens
    | ReadSegments
    | MapSegments
    | RankSegmentHeads
    | WriteCode
    | WritePage
    | Suggest
    | CheckToken
    | ChooseTarget
    | FindAnswers
    | ResolveAnswers
    | ReadChapter
    | Presence
    | GiveUp;
  cache?: CacheRef | null;
  gives_turns?: boolean;
}
/**
 * The attention of one head, and its source contributions. The reply lists its buffers.
 *
 *     The reply contains `"pattern"` and the map of the requested weighting, and `"contribution"` if it is small. If a
 *     weighting cannot be computed, a note says why. `rows` and `columns` limit the map to some destinations and sources.
 *     A map with more than 512 × 512 cells is down-sampled: each block of `step` × `step` cells becomes one cell, by the
 *     method `pool`. A single destination or source is never down-sampled.
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
 * What is attributed: contrasts of logits (one for all prompts, or one for each), or another number in the model.
 *
 *     Attributes:
 *         contrasts: Contrasts of logits. Empty if the target is of another kind.
 *         direction: The key of a direction at the output of the final norm.
 *         own: Whether this is the default target, made from the model's two most likely tokens.
 *         inner: A target inside the model, instead of logits.
 *         next_token: The token that follows each position, instead of the same contrasts at all positions.
 *         through: The heads of a path to the target, each with the source that it reads. The first head writes to the
 *             target. Each further head writes to the source that the head before it reads.
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
 * The attention score of a head from a destination to a source, decomposed on the query or the key side.
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
 * A number that an MLP neuron computes from the MLP's input. `part` says which number (see `NeuronPart`).
 */
export interface NeuronInput {
  kind: "neuron";
  layer: number;
  index: number;
  part?: "gate" | "pre" | "up";
}
/**
 * The stream at a point (`"8_pre"`, `"8_mid"`, `"final_post"`), projected on a direction that the kernel keeps.
 *
 *     Attributes:
 *         key: The direction.
 *         at: The point.
 *         feature: The feature that has this direction as its encoder. None for any other direction.
 */
export interface StreamDirection {
  kind: "direction";
  key: string;
  at: string;
  feature?: FeatureInput | null;
}
/**
 * What a feature of an SAE or a transcoder reads, before its nonlinearity.
 *
 *     Attributes:
 *         index: The feature.
 *         sae: The class of the SAE.
 *         read: The activation that the SAE encodes.
 *         norm: The norm between the stream and this activation (`"blocks.3.ln2"`). Empty without a norm.
 *         unweighted: Whether the activation comes before the weight and the bias of this norm.
 *         offset: What the biases add.
 */
export interface FeatureInput {
  index: number;
  sae: string;
  read: string;
  norm: string;
  unweighted: boolean;
  offset: number;
}
/**
 * A head of a path, and the source that it reads.
 *
 *     If `source` is None (only in Python, for the last head), the head reads all sources.
 */
export interface Through {
  layer: number;
  head: number;
  source: number | null;
}
/**
 * At each position, the logit of the token that really follows. So each position has its own answer.
 *
 *     Attributes:
 *         versus: `"runner-up"`: the logit of the most likely other token at this position is subtracted. None: nothing
 *             is subtracted.
 */
export interface NextToken {
  versus?: "runner-up" | null;
}
/**
 * Positions from `start` up to, but not including, `stop`.
 */
export interface Span {
  start: number;
  stop: number;
}
/**
 * The maps of all heads of a layer, each at most `side` cells wide. Each block shows its cell farthest from zero.
 *
 *     Buffer 0 is int8 [head, side, side]. Its unit is 1/127 of the head's entry in `limits`. −128 is an empty cell.
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
 * The mean of the maps of all heads of a layer (None: of the model). For contributions, the sum.
 *
 *     `part` of the reply describes buffer 0. `rows` and `columns` are as in `ReadAttention`.
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
 * A score of each head. Buffer 0 is float32 [layer × head], NaN if a score cannot be determined.
 */
export interface ScoreHeads {
  kind: "scores";
  score: "copying" | "duplicate" | "entropy" | "first" | "induction" | "previous";
  prompt?: number | null;
  padding?: "found" | "none";
}
/**
 * Facts about the cache.
 */
export interface Describe {
  kind: "describe";
  padding?: "found" | "none";
}
/**
 * The tokens of one prompt, or the tokens that all prompts have in common.
 */
export interface ReadTokens {
  kind: "tokens";
  prompt?: number | null;
  padding?: "found" | "none";
}
/**
 * Every `ActivationCache` in the user's namespace: in variables, and up to two levels deep in containers.
 *
 *     `since` says which caches are compared with their last known state. None: all. 0: if they have very many activations
 *     together, only some, so that the reply comes soon. The reply's `unread` counts the others: as long as it is not 0, a
 *     request with the reply's `since` compares more of them.
 */
export interface ListCaches {
  kind: "caches";
  since?: number | null;
  padding?: "found" | "none";
}
/**
 * The effects on the target if heads, or the stream at a layer and position, are replaced in runs of the model.
 *
 *     Runs are made only in turns on the kernel's main thread, between cells. Each turn takes a moment. The reply has the
 *     effects that are known so far. The view sends the request again until nothing is left to measure. The buffers are
 *     float32 [layer × head], or [layer × position] for the stream: the total effect, the direct effect, and the estimate
 *     of the total effect. NaN means not known (yet). For `"zero"` and `"mean"`, values are what the component adds: minus
 *     the change of the target. For `"other"`, they are the change of the target.
 *
 *     Attributes:
 *         of: What is replaced.
 *         replaced_by: What takes its place.
 *         against: The compared run, for `"other"`.
 *         measure: Whether to continue measuring. If not, the reply only has what is known.
 *         stop: Whether to make no more runs. Ignored with `measure`.
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
 * The run that is compared with the shown run: another prompt, another cache, or the same run without some heads.
 *
 *     Attributes:
 *         cache: The name of the other cache in the user's namespace (`runs["clean"]`). None: the same cache.
 *         prompt: The prompt of the other run. None (only for another cache, or with `without`): the same prompt as in the
 *             shown run, or the mean over prompts if the mean is shown.
 *         without: Heads (`"L23H3"`). If there are any, the other run is the shown cache's run with these heads replaced.
 *         replaced_by: What takes the place of these heads' output.
 *         align: How positions are matched. None: by index. `"by token"`: by the tokens that both prompts have in the
 *             same order.
 */
export interface Against {
  cache?: string | null;
  prompt?: number | null;
  /**
   * @maxItems 64
   */
  without?: string[];
  replaced_by?: "mean" | "zero";
  align?: "by token" | null;
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
 * One decomposition of two runs. The buffers of the reply are float32 [component].
 *
 *     Buffer 0 has the values of the first run (the shown one), buffer 1 those of the second. Their difference, second
 *     minus first, is buffer 2 (the part from different writing) plus buffer 3 (the part from different reading).
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
 * The attention pattern of one head in two runs, and their difference. The reply lists its three buffers.
 *
 *     The maps are down-sampled as in `ReadAttention`. For the difference, each block shows its cell farthest from zero.
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
 * The token lens of two runs. Points and positions are those of the first run; see `ReadTokenLens`.
 */
export interface CompareTokenLens {
  kind: "compare-token-lens";
  /**
   * @maxItems 4096
   */
  points: string[];
  start: number;
  stop: number;
  target: Target;
  against: Against;
  k?: number;
  prompt?: number | null;
  norm?: "frozen" | "recomputed";
  padding?: "found" | "none";
}
/**
 * Which positions of the shown run are matched with which positions of the compared run.
 */
export interface PairPositions {
  kind: "pairing";
  against: Against;
  prompt?: number | null;
  padding?: "found" | "none";
}
/**
 * One decomposition, for one prompt or averaged. Buffer 0 of the reply is float32 [component].
 *
 *     For the mean over several prompts, buffer 1 is the standard deviation, float32 [component]: for `accumulated` that
 *     of row + constant, otherwise that of the row. Unless there are too many values (`per_prompt`), buffer 2 has the rows
 *     of each prompt, float32 [component, prompt], and buffer 3 the constant of each prompt, float32 [prompt]. The mean
 *     leaves out prompts in which the position is padding: their values in buffers 2 and 3 are NaN.
 */
export interface Attribute {
  kind: "attribute";
  by: "accumulated" | "head" | "layer";
  target: Target;
  prompt?: number | null;
  position?: number | "last";
  norm?: "frozen" | "recomputed";
  transport?: "plain" | "transported";
  padding?: "found" | "none";
}
/**
 * The contribution of each component at each position, to the target at this position.
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
  transport?: "plain" | "transported";
  padding?: "found" | "none";
}
/**
 * The strongest MLP neurons of one layer (None: all layers), k of each sign. Buffer 0 is float32 [component].
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
 * The attention score of the target by pairs of components: the k strongest on the query side and on the key side.
 *
 *     Buffer 0 of the reply is float32 [query + 1, key + 1]. The last row and the last column are the sums of all
 *     other components, so the cells sum to the whole score.
 */
export interface ReadPairs {
  kind: "pairs";
  target: Target;
  prompt?: number | null;
  k?: number;
  padding?: "found" | "none";
}
/**
 * The rows of an SAE or a transcoder: its error, its bias, and the k active features that contribute most.
 *
 *     Buffer 0 of the reply is float32 [component], the contributions. Buffer 1 is float32 [component], the activations of
 *     the features (NaN for other rows). For the mean over prompts, both are means.
 *
 *     Attributes:
 *         sae: The name of the SAE (see `CacheFacts.saes`). None: the first one.
 *         state: The SAE's state, as the view knows it: a view sends the request again when the state differs. The kernel
 *             always reads the present SAE.
 */
export interface ReadFeatures {
  kind: "features";
  target: Target;
  prompt?: number | null;
  position?: number | "last";
  sae?: string | null;
  k?: number;
  state?: string | null;
  padding?: "found" | "none";
}
/**
 * The activation of one feature at each position. Buffer 0 of the reply is float32 [position], NaN at padding.
 *
 *     For the mean over prompts, each position has the mean over the prompts in which it is not padding. `state` is as in
 *     `ReadFeatures`.
 */
export interface ReadFeatureTokens {
  kind: "feature-tokens";
  feature: number;
  prompt?: number | null;
  sae?: string | null;
  state?: string | null;
  padding?: "found" | "none";
}
/**
 * What a feature reads before its nonlinearity, as a target.
 */
export interface ChooseFeature {
  kind: "feature-target";
  feature: number;
  sae?: string | null;
  padding?: "found" | "none";
}
/**
 * The likeliest tokens at some points of the stream (`"3_pre"`, `"3_mid"`, `"final_post"`), for some positions.
 *
 *     For the mean over prompts, probabilities are averaged. A cell is empty if its position is padding in every prompt.
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
  transport?: "plain" | "transported";
  padding?: "found" | "none";
}
/**
 * The token that follows each position: how likely it was, and what each layer and head adds to its logit.
 *
 *     The target must have a `next_token`. The buffers of the reply are float32. Buffer 0 is [position], the
 *     natural logarithm of the token's probability. Buffer 1 is [position], its rank (1 is the likeliest). Buffer 2 is
 *     [layer × position], what each layer adds. Buffer 3 is [layer × head × position], what each head adds. It is empty if
 *     the heads have no separate outputs, or if it would be larger than 1 MB (`MapPositions` then has the values of some
 *     heads). If `neurons` are named (`"L5N123"`), buffer 2 is [neuron × position], and buffer 3 is empty. Numbers are NaN
 *     where no token follows, and in layers or heads without a value. In a mean over prompts, all ranks are NaN, and
 *     a position has the mean over the prompts in which a token follows.
 */
export interface ReadNextTokens {
  kind: "next-tokens";
  target: Target;
  prompt?: number | null;
  /**
   * @maxItems 100
   */
  neurons?: string[];
  padding?: "found" | "none";
}
/**
 * The tokens whose logits a head raises and lowers most: by its output at a position, and from one source alone.
 *
 *     `source=None` means the source with the most attention from this position.
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
 * The segments of one prompt, and the rules that find several segments in its text.
 *
 *     Attributes:
 *         by: The rule, or the user's ranges. None: only the rules are looked for.
 *         prompt: The prompt. None: the only one.
 */
export interface ReadSegments {
  kind: "segments";
  by?: ("line" | "sentence" | "tag" | "turn") | SegmentRange[] | null;
  prompt?: number | null;
  padding?: "found" | "none";
}
/**
 * A segment that the user gave: a named range of positions. `end` is the position after the last one.
 */
export interface SegmentRange {
  name: string;
  start: number;
  end: number;
}
/**
 * How much each segment reads each segment, for one head. The buffers of the reply are float32.
 *
 *     Buffer 0 is [destination, source]. Buffer 1 is [destination], what is read from padding, which is in no segment.
 *     Buffer 2 is [source], what all later positions read of each segment on average (NaN for the last segment).
 */
export interface MapSegments {
  kind: "segment-map";
  layer: number;
  head: number;
  by: ("line" | "sentence" | "tag" | "turn") | SegmentRange[];
  target: Target;
  prompt?: number | null;
  weighting?: "contribution" | "pattern" | "value";
  padding?: "found" | "none";
}
/**
 * The heads through which one segment reads another most. Buffer 0 is float32 [head].
 *
 *     Attributes:
 *         destination: The segment that reads. None: all positions after the segment that is read. A negative index counts
 *             from the end.
 *         source: The segment that is read.
 *         k: The number of heads.
 */
export interface RankSegmentHeads {
  kind: "segment-heads";
  by: ("line" | "sentence" | "tag" | "turn") | SegmentRange[];
  target: Target;
  prompt?: number | null;
  weighting?: "contribution" | "pattern" | "value";
  destination?: number | null;
  source?: number;
  k?: number;
  padding?: "found" | "none";
}
/**
 * Python code that computes exactly the values in one picture.
 */
export interface WriteCode {
  kind: "code";
  picture:
    | "attention"
    | "attention-of-runs"
    | "features"
    | "heads"
    | "layers"
    | "lens"
    | "positions"
    | "prompts"
    | "ranking"
    | "runs"
    | "segments"
    | "stream"
    | "token-lens"
    | "why";
  shown: Shown;
  padding?: "found" | "none";
}
/**
 * Everything that is selected in a view. It determines the view's pictures.
 *
 *     Attributes:
 *         trail: The targets that were chosen one after another. `target` is the target of the present step,
 *             `trail[step]`. Empty if there is only one target.
 *         step: The index of the present step in the trail.
 *         why: How the tab "why" decomposes an attention score: into two sides, or into pairs of components.
 *         feeds: Colours the head map by what feeds a head. None: no such colouring.
 *         against: The run that the shown one is compared with. None: no comparison.
 *         run: Which of the two runs the head map and the ranking show, or their difference.
 *         effect: Which effect of the heads the head map and the ranking show.
 *         replaced_by: What takes the place of a head's output in the runs that measure effects.
 *         segments: How the prompt is divided into segments. None: the tokens are shown one by one.
 *         transport: Whether the logit lens maps the stream to its end, if the user gave a lens.
 *         sae: The SAE whose features the tab "features" shows. None: the first one.
 *         feature: The feature of this SAE whose activations colour the tokens. None: no such colouring.
 *         lens_rows: Whether the token lens has one row for each layer, or one for each cached point of the stream.
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
  tab?: "attention" | "features" | "positions" | "prompts" | "runs" | "segments" | "token-lens" | "why";
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
  segments?: ("line" | "sentence" | "tag" | "turn") | SegmentRange[] | null;
  transport?: "plain" | "transported";
  sae?: string | null;
  feature?: number | null;
  lens_rows?: "layers" | "points";
}
/**
 * A step of the trail: a target, and the position where it is read.
 */
export interface Step {
  target: Target;
  position?: number | "last";
}
/**
 * A colouring of the head map: what each earlier head adds to the query, key or value of one head, for one source.
 *
 *     Over all components, the values for query or key sum to the attention score, those for value to the source
 *     contribution.
 */
export interface Feeds {
  layer: number;
  head: number;
  source: number;
  by: "key" | "query" | "value";
}
/**
 * The view as a stand-alone HTML page. Buffer 0 of the reply is the text of the page, UTF-8.
 */
export interface WritePage {
  kind: "page";
  shown: Shown;
  holds?: "all" | "heads" | "view";
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
 * The default target: the one of an inline panel of the same cache, if it is about logits.
 *
 *     Otherwise the model's own two top predictions at each prompt's last token.
 */
export interface ChooseTarget {
  kind: "target";
  padding?: "found" | "none";
}
/**
 * Requests what could be the target: the kernel's variables with answer tokens, and a panel's target.
 */
export interface FindAnswers {
  kind: "answers";
  padding?: "found" | "none";
}
/**
 * The target that a variable holds (`name` is from `AnswersReply`), or that the inline panel shows (None).
 */
export interface ResolveAnswers {
  kind: "resolve";
  name?: string | null;
  padding?: "found" | "none";
}
/**
 * The text of a chapter of the documentation, by its name.
 */
export interface ReadChapter {
  kind: "chapter";
  name: string;
  padding?: "found" | "none";
}
/**
 * Reports that an inline panel's view was shown or removed, or that its page closes or reloads.
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
 *     `state` is `CACHE.WEIGHTS.ADDED`. The parts change when activations change, when the model's weights change, and
 *     when something is added to the cache.
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
        | AttentionReply
        | ThumbnailsReply
        | BlendReply
        | ScoresReply
        | CacheFacts
        | TokensReply
        | CachesReply
        | EffectsReply
        | WithoutReply
        | ComparisonReply
        | AttentionComparisonReply
        | TokenLensComparisonReply
        | PairingReply
        | AttributionReply
        | PositionsReply
        | NeuronsReply
        | PairsReply
        | FeaturesReply
        | FeatureTokensReply
        | FeatureTargetReply
        | TokenLensReply
        | NextTokensReply
        | HeadTokensReply
        | SegmentsReply
        | SegmentMapReply
        | SegmentHeadsReply
        | CodeReply
        | PageReply
        | Suggestions
        | TokenCheck
        | TargetReply
        | AnswersReply
        | ResolvedReply
        | ChapterReply
        | PresenceReply
        | GivenUp
        | Working
      )
    | null;
  failure?: Failure | null;
}
/**
 * Attention of one head, in one prompt or averaged over prompts.
 *
 *     The maps have ⌈rows / step⌉ × ⌈columns / step⌉ values (None: all positions), each for `step` × `step` cells.
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
 *     A map is float16, or float32 if it is `wide`. For a `triangle`, only the cells on and below the diagonal are sent,
 *     row by row. The others are 0. In the mean over prompts, a cell whose destination or source is padding in every
 *     prompt is NaN. `"value"` is attention × ‖v W_O‖. `"contribution"` is the source contribution to the
 *     target at the destination, in logits. `"reads"` and `"brings"` are the rows of the pattern and of the contribution
 *     at the requested destination (for the mean over prompts, at each prompt's own destination).
 */
export interface AttentionBuffer {
  what: "brings" | "contribution" | "pattern" | "reads" | "value";
  scale?: number;
  wide?: boolean;
  triangle?: boolean;
}
/**
 * Thumbnails of all heads of a layer, `side` × `side` cells each. `limits` are the heads' largest absolute values.
 *
 *     A limit is None if there is no such head, its pattern was not cached, its source contributions cannot be determined
 *     (`notes` give the reason), or a value is infinite. The head's cells are then 0.
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
 * The attention of many heads in one map. For `rows`, `columns` and `step` see `AttentionReply`.
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
 * A score for each head. `meaning` is what it measures, in a sentence. `low` and `high` are its limits.
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
 * Facts about the cache and its model.
 *
 *     `last` is the last real position of each prompt, `points` are the cached points of the residual stream. `padding` is
 *     the number of detected padding tokens. `padding` and `last` do not depend on the `padding` of the request.
 *     `generated_from` is the position of the first generated token, and `lens` the maps of the stream to its end, if the
 *     user gave them. `saes` are the SAEs and transcoders whose features can be shown. `parallel` are the layers whose MLP
 *     reads the stream before the layer, as their attention does.
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
  generated_from?: number | null;
  lens?: LensFacts | null;
  saes?: KnownSae[];
  parallel?: number[];
}
/**
 * Components as columns, to save space in messages and files.
 *
 *     Attributes:
 *         kinds: The kinds that occur.
 *         kind: For each component, the index of its kind in `kinds`.
 *         layer: For each component, its layer.
 *         index: For each component, its index.
 */
export interface ComponentTable {
  kinds: (
    | "attn_bias"
    | "attn_out"
    | "b_dec"
    | "biases"
    | "embed"
    | "error"
    | "feature"
    | "final_post"
    | "head"
    | "layer_out"
    | "mid"
    | "mixer_out"
    | "mlp_bias"
    | "mlp_out"
    | "neuron"
    | "other_features"
    | "per_layer_out"
    | "pos_embed"
    | "position_bias"
    | "pre"
    | "skip"
    | "soft_cap"
    | "source"
  )[];
  kind: number[];
  layer: (number | null)[];
  index: (number | null)[];
}
/**
 * The lens that the user gave: its name, and its formula (`h + A h + b`).
 */
export interface LensFacts {
  name: string;
  formula: string;
}
/**
 * An SAE or a transcoder that was given, or that is in the namespace and fits the model.
 *
 *     Attributes:
 *         name: Its name in requests: a variable's name, if it has one.
 *         site: The activation that it reconstructs. Empty if that is not known.
 *         state: Differs for another SAE, and after a change of this SAE's weights or settings. Empty if it is not known.
 */
export interface KnownSae {
  name: string;
  site: string;
  state?: string;
}
/**
 * The tokens of a prompt, one label for each position.
 */
export interface TokensReply {
  kind: "tokens";
  tokens: TokenLabel[];
}
/**
 * The token at a position. If it differs between prompts, `text` is empty, and `varies` lists some of the tokens.
 *
 *     `special` is whether the token is a special token of the tokenizer, such as the end of a chat's turn.
 */
export interface TokenLabel {
  text: string;
  id?: number | null;
  varies?: string[];
  padding?: boolean;
  special?: boolean;
}
/**
 * All caches, in the namespace's order. `kernel` changes at every restart. `notes` name what was left out.
 *
 *     `unread` caches have rows of an earlier comparison (see `ListCaches`).
 */
export interface CachesReply {
  kind: "caches";
  kernel: string;
  caches: CacheRow[];
  notes: string[];
  unread?: number;
  since?: number;
}
/**
 * One cache in the namespace, described from metadata only.
 *
 *     `names` are all expressions for it (`cache`, `runs["clean"]`), plain variables first. `age` is the time in seconds
 *     since Residscope first saw it. `changed` is whether the cache was changed since then. `weights_changed` is
 *     whether the model's weights were changed since then, or the cache has another model now. `problem` is the reason if
 *     the cache cannot be inspected.
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
 * The effects so far (see `MeasureEffects`).
 *
 *     Attributes:
 *         of: What is replaced.
 *         state: Whether all is measured (`done`), measuring waits for a turn (`waiting`), or it was stopped.
 *         turn: The token with which `residscope.hosts.turns.take` takes the turn. None if measuring does not wait.
 *         done: The number of measured effects.
 *         total: The number of all effects. 0 before it is known.
 *         before: The target in the unchanged run. None before it is known.
 *         replayed: The comparison of the unchanged run with the cache, in words. Empty before it is known.
 *         replaced_by: What takes the place of the activation, in words.
 *         prompts: The number of prompts in the mean.
 *         notes: Notes on these numbers.
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
 * Whether there is a run without these heads, and how the unchanged run compares with the cache.
 */
export interface WithoutReply {
  kind: "without";
  state: "done" | "waiting";
  turn: string | null;
  replayed: string;
  notes: string[];
}
/**
 * Two runs row by row. For each run, and for the difference, Σ rows + constant + unexplained = measured.
 *
 *     For `head` and `missing` see `AttributionReply`. `read` is the part of the measured difference that comes from
 *     different reading, summed over all rows. It includes the difference of the constants.
 */
export interface ComparisonReply {
  kind: "compare";
  by: "accumulated" | "feature" | "head" | "layer" | "neuron" | "source";
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
 * The sums of the rows of a run, or of the difference of two runs, as in `AttributionReply`.
 *
 *     For a difference, `tolerance`, `worst` and `warnings` are for both runs together.
 */
export interface RunSum {
  measured: number | null;
  constant: number;
  unexplained: number | null;
  worst: number | null;
  tolerance: number;
  measured_from: string;
  own: boolean;
  warnings?: ("attended-to-padding" | "training-mode" | "weights-changed")[];
}
/**
 * Attention of one head in two runs: `parts` are its pattern in the first run, in the second, and second − first.
 *
 *     Each map has ⌈positions / step⌉² values. `positions` is the number of pairs of matched positions. `pairs` lists
 *     them, unless all positions are matched by their index.
 */
export interface AttentionComparisonReply {
  kind: "compare-attention";
  layer: number;
  head: number;
  positions: number;
  parts: AttentionBuffer[];
  notes: string[];
  step?: number;
  pairs?: PositionPair[] | null;
}
/**
 * A position of the first run, and the matched position of the second run.
 */
export interface PositionPair {
  first: number;
  second: number;
}
/**
 * A range of positions of the token lens in two runs: `first[point][position - start]`, and `second` likewise.
 *
 *     `beside` has the matched position of the second run for each position. If there is none, this entry and the cells of
 *     `second` are None. The cells of `second` are also None at points that the second run does not have.
 */
export interface TokenLensComparisonReply {
  kind: "compare-token-lens";
  points: string[];
  start: number;
  first: LensCell[][];
  second: (LensCell | null)[][];
  beside: (number | null)[];
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
 * How the positions of two runs are matched.
 *
 *     Attributes:
 *         how: `index`: by index. `padding`: by their place in the prompt without its padding. `token`: by the tokens that
 *             both prompts have. `none`: not at all, because the lengths differ and no alignment was chosen.
 *         pairs: None if the positions are matched by index, or not at all, or differently in different prompts.
 *         first_length: The number of real tokens of the compared prompt (the first one) in the first run.
 *         second_length: The same in the second run.
 *         different: How many pairs have different tokens.
 *         has_tokens: Whether the tokens of both runs are known.
 */
export interface PairingReply {
  kind: "pairing";
  how: "index" | "none" | "padding" | "token";
  pairs: PositionPair[] | null;
  first_length: number;
  second_length: number;
  different: number;
  has_tokens: boolean;
}
/**
 * A decomposition: Σ rows + constant + unexplained = measured (for `accumulated` the last row, not the sum).
 *
 *     For `head` the first layers × heads rows are the map, with NaN in a layer without attention heads. If no layer has
 *     heads, `refusal` is the reason, and the rows are those of `layer`.
 *
 *     `missing` names the kinds of rows that were not cached ("MLPs"). The other rows are exact, but not complete.
 *     `own` is whether `measured` is the model's own output. If not, it was computed from the final stream in the cache.
 *     `worst` is the largest unexplained value of any prompt. `worst`, `measured` and `unexplained` are None if the cache
 *     does not give the measured value. `inner` describes a target inside the model. `warnings` are the kinds of those
 *     `notes` that concern every number of this run. `prompts` is the number of prompts in the mean.
 */
export interface AttributionReply {
  kind: "attribute";
  by: "accumulated" | "feature" | "head" | "layer" | "neuron" | "source";
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
  warnings?: ("attended-to-padding" | "training-mode" | "weights-changed")[];
}
/**
 * Facts about a target inside the model, in the shown prompt (in the first prompt if the mean is shown).
 *
 *     Attributes:
 *         point: The point of the stream where the target is read (`"23_pre"`). Only earlier components contribute.
 *         destination: The position where the target is read, or the destination of an attention score.
 *         source: The source, if the target has one.
 *         versus: The source that `source` is compared with, if any.
 *         attention: The attention that the head pays to `source`.
 *         versus_attention: The attention that the head pays to `versus`.
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
 * A map component × position. Σ rows + constant = the measured value (for `accumulated` the last row + constant).
 *
 *     `missing` names the kinds of rows that were not cached. The other rows then do not sum to the measured value.
 */
export interface PositionsReply {
  kind: "positions";
  by: "accumulated" | "feature" | "head" | "layer" | "neuron" | "source";
  components: ComponentTable;
  positions: number;
  notes: string[];
  missing?: string[];
}
/**
 * The strongest neurons, positive before negative, strongest first.
 *
 *     `total` is the sum over all `count` neurons of `layers` layers. `total` + `bias` is the contribution of their
 *     MLPs.
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
 *     cached score, to which all cells sum.
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
 * The rows of an SAE. They sum to the rows of `by="layer"` whose place they take.
 *
 *     Attributes:
 *         sae: The name of the SAE.
 *         cls: The class of the SAE.
 *         read: The activation that the SAE encodes.
 *         site: The activation that it reconstructs.
 *         row: The row of `by="layer"` that the SAE's rows replace. If it is a point of the stream, they replace all rows
 *             before this point.
 *         components: The error, `b_dec`, and other rows that are not features; then the features, the strongest first.
 *         links: For each component, the address of its page on Neuronpedia. Empty if there is none.
 *         active: The number of active features.
 *         others: The sum of the active features that are not listed.
 *         total: The sum of all rows of the SAE.
 *         measured: The sum of the rows of `by="layer"` that the SAE's rows replace. None if it is not known.
 *         worst: The largest difference between the two sums (`total`, `measured`) in a prompt. None if it is not known.
 *         tolerance: The largest difference that counts as rounding.
 *         prompts: The number of prompts in the mean.
 *         notes: Notes on these values.
 */
export interface FeaturesReply {
  kind: "features";
  sae: string;
  cls: string;
  read: string;
  site: string;
  row: ComponentTable;
  components: ComponentTable;
  links: string[];
  active: number;
  others: number;
  total: number;
  measured: number | null;
  worst: number | null;
  tolerance: number;
  prompts: number;
  notes: string[];
}
/**
 * The activation of a feature at each position. `site` is the activation that the SAE reconstructs.
 */
export interface FeatureTokensReply {
  kind: "feature-tokens";
  sae: string;
  site: string;
  feature: number;
  positions: number;
  notes: string[];
}
/**
 * The target that is the input of a feature, and notes on when the feature is active.
 */
export interface FeatureTargetReply {
  kind: "feature-target";
  target: Target;
  notes: string[];
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
 * How each token was predicted at the position before it.
 *
 *     Attributes:
 *         positions: The number of positions.
 *         runner_up: At each position the most likely other token; empty if there is none, and in a mean over prompts.
 *         count: The number of positions that have a next token, in all prompts that are shown.
 *         adding: At how many of them the rows sum to the measured value. None if nothing is measured there.
 *         worst: The largest unexplained value at a position.
 *         tolerance: The largest unexplained value that counts as rounding.
 *         missing: The kinds of rows that were not cached.
 *         notes: Notes on these values.
 */
export interface NextTokensReply {
  kind: "next-tokens";
  positions: number;
  runner_up: string[];
  count: number;
  adding: number | null;
  worst: number | null;
  tolerance: number;
  notes: string[];
  missing?: string[];
}
/**
 * The tokens whose logits a head raises and lowers most, computed with the cached scale of the final norm.
 *
 *     `output_top` and `output_bottom` are for the head's output at the position. `source_top` and `source_bottom` are for
 *     W_OV applied to what the head reads at `source`, as if its attention to this source were 1.
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
 * A token, and the number that is added to its logit.
 */
export interface TokenValue {
  token: Token;
  value: number;
}
/**
 * The segments of a prompt, in the order of the text. They cover its real tokens without overlap.
 *
 *     `turns` are the turns if the prompt is a chat, whatever rule was requested.
 */
export interface SegmentsReply {
  kind: "segments";
  rules: SegmentRule[];
  turns: SegmentLabel[];
  segments: SegmentLabel[];
  notes: string[];
}
/**
 * A rule that finds several segments in the prompt's text, and their number.
 */
export interface SegmentRule {
  by: "line" | "sentence" | "tag" | "turn";
  count: number;
}
/**
 * A segment. `named` is False if neither a rule nor the user made it: it has the tokens between other segments.
 */
export interface SegmentLabel {
  name: string;
  start: number;
  end: number;
  named?: boolean;
}
/**
 * How much each segment reads each segment, for one head. `meaning` is what a value is, in words.
 */
export interface SegmentMapReply {
  kind: "segment-map";
  layer: number;
  head: number;
  segments: SegmentLabel[];
  meaning: string;
  notes: string[];
}
/**
 * The heads through which one segment reads another, the head with the value farthest from zero first.
 *
 *     `count` is the number of all heads. `destination` and `source` are the indices of the segments, counted from the
 *     start. `destination` is None for all positions after `source`.
 */
export interface SegmentHeadsReply {
  kind: "segment-heads";
  destination: number | null;
  source: number;
  heads: string[];
  count: number;
  meaning: string;
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
 * A page. `name` is the suggested name of its file.
 */
export interface PageReply {
  kind: "page";
  name: string;
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
 * How a text is tokenised. `single`: whether it is exactly one token. If not, `message` gives the reason.
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
 * Possible answers, in the namespace's order. `panel` describes the target of an inline panel, if there is one.
 */
export interface AnswersReply {
  kind: "answers";
  variables: Variable[];
  panel: string | null;
  notes: string[];
}
/**
 * A variable with possible answers. `name` is a Python expression, `words` a description such as `[8, 2] ids`.
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
 * A chapter of the documentation, as Markdown.
 */
export interface ChapterReply {
  kind: "chapter";
  name: string;
  text: string;
}
/**
 * Confirms a presence message.
 */
export interface PresenceReply {
  kind: "presence";
}
/**
 * Confirms a request to cancel a job.
 */
export interface GivenUp {
  kind: "give-up";
}
/**
 * The job is not finished: `done` of `total` steps are done. Send the request again, with its id.
 *
 *     `total` is 0 if it is not known.
 */
export interface Working {
  kind: "working";
  done: number;
  total: number;
}
/**
 * The reason why a request could not be answered: a stable code, and a sentence that says what to do.
 */
export interface Failure {
  code: string;
  message: string;
}

/**
 * Identifies the version of the wire: the value of `residscope.wire.protocol.wire()` in a kernel that this page works
 * with.
 */
export const WIRE = "e33cf490443d";

// Generated from py_backend/residscope/wire/protocol.py by `npm run protocol`. Do not edit.
// Values that do not match the schema are refused. Fields that the schema does not name are left out.
import * as v from "valibot";
import type { Shown as Selected } from "./protocol.gen";

export const Token = v.object({
  id: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  text: v.pipe(v.string(), v.maxLength(20000)),
});
export const Contrast = v.object({
  answer: v.pipe(v.array(Token), v.maxLength(10000)),
  distractor: v.pipe(v.array(Token), v.maxLength(10000)),
});
export const AttentionScore = v.object({
  kind: v.picklist(["attention"]),
  layer: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  head: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  destination: v.union([v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)), v.picklist(["last"])]),
  source: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  versus: v.exactOptional(v.nullable(v.union([v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)), v.picklist(["mean","most"])]))),
  side: v.exactOptional(v.picklist(["key","query"])),
});
export const NeuronInput = v.object({
  kind: v.picklist(["neuron"]),
  layer: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  index: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  part: v.exactOptional(v.picklist(["gate","pre","up"])),
});
export const FeatureInput = v.object({
  index: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  sae: v.pipe(v.string(), v.maxLength(200)),
  read: v.pipe(v.string(), v.maxLength(200)),
  norm: v.pipe(v.string(), v.maxLength(200)),
  unweighted: v.boolean(),
  offset: v.pipe(v.number(), v.finite()),
});
export const StreamDirection = v.object({
  kind: v.picklist(["direction"]),
  key: v.pipe(v.string(), v.maxLength(200)),
  at: v.pipe(v.string(), v.maxLength(200)),
  feature: v.exactOptional(v.nullable(FeatureInput)),
});
export const Through = v.object({
  layer: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  head: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  source: v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000))),
});
export const NextToken = v.object({
  versus: v.exactOptional(v.nullable(v.picklist(["runner-up"]))),
});
export const Target = v.object({
  contrasts: v.pipe(v.array(Contrast), v.maxLength(65536)),
  direction: v.exactOptional(v.nullable(v.pipe(v.string(), v.maxLength(200)))),
  own: v.exactOptional(v.boolean()),
  inner: v.exactOptional(v.nullable(v.variant("kind", [AttentionScore, NeuronInput, StreamDirection]))),
  through: v.exactOptional(v.pipe(v.array(Through), v.maxLength(64))),
  next_token: v.exactOptional(v.nullable(NextToken)),
});
export const Span = v.object({
  start: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  stop: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
});
export const ReadAttention = v.object({
  kind: v.picklist(["attention"]),
  layer: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  head: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  target: Target,
  prompt: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  position: v.exactOptional(v.union([v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)), v.picklist(["last"])])),
  weighting: v.exactOptional(v.picklist(["contribution","pattern","value"])),
  rows: v.exactOptional(v.nullable(Span)),
  columns: v.exactOptional(v.nullable(Span)),
  pool: v.exactOptional(v.picklist(["mean","peak"])),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const ReadThumbnails = v.object({
  kind: v.picklist(["thumbnails"]),
  layer: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  target: Target,
  prompt: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  weighting: v.exactOptional(v.picklist(["contribution","pattern","value"])),
  side: v.exactOptional(v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(256))),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const BlendAttention = v.object({
  kind: v.picklist(["blend"]),
  layer: v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000))),
  target: Target,
  prompt: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  weighting: v.exactOptional(v.picklist(["contribution","pattern","value"])),
  rows: v.exactOptional(v.nullable(Span)),
  columns: v.exactOptional(v.nullable(Span)),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const ScoreHeads = v.object({
  kind: v.picklist(["scores"]),
  score: v.picklist(["copying","duplicate","entropy","first","induction","previous"]),
  prompt: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const Describe = v.object({
  kind: v.picklist(["describe"]),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const ReadTokens = v.object({
  kind: v.picklist(["tokens"]),
  prompt: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const ListCaches = v.object({
  kind: v.picklist(["caches"]),
  since: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(0)))),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const Against = v.object({
  cache: v.exactOptional(v.nullable(v.pipe(v.string(), v.maxLength(200)))),
  prompt: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  without: v.exactOptional(v.pipe(v.array(v.pipe(v.string(), v.maxLength(200))), v.maxLength(64))),
  replaced_by: v.exactOptional(v.picklist(["mean","zero"])),
  align: v.exactOptional(v.nullable(v.picklist(["by token"]))),
});
export const MeasureEffects = v.object({
  kind: v.picklist(["effects"]),
  target: Target,
  of: v.exactOptional(v.picklist(["heads","stream"])),
  replaced_by: v.exactOptional(v.picklist(["mean","other","zero"])),
  against: v.exactOptional(v.nullable(Against)),
  prompt: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  position: v.exactOptional(v.union([v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)), v.picklist(["last"])])),
  measure: v.exactOptional(v.boolean()),
  stop: v.exactOptional(v.boolean()),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const RunWithout = v.object({
  kind: v.picklist(["without"]),
  against: Against,
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const Compare = v.object({
  kind: v.picklist(["compare"]),
  by: v.picklist(["accumulated","head","layer"]),
  target: Target,
  against: Against,
  prompt: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  position: v.exactOptional(v.union([v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)), v.picklist(["last"])])),
  norm: v.exactOptional(v.picklist(["frozen","recomputed"])),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const CompareAttention = v.object({
  kind: v.picklist(["compare-attention"]),
  layer: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  head: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  against: Against,
  prompt: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const CompareTokenLens = v.object({
  kind: v.picklist(["compare-token-lens"]),
  points: v.pipe(v.array(v.pipe(v.string(), v.maxLength(200))), v.maxLength(4096)),
  start: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  stop: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  target: Target,
  against: Against,
  k: v.exactOptional(v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(50))),
  prompt: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  norm: v.exactOptional(v.picklist(["frozen","recomputed"])),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const PairPositions = v.object({
  kind: v.picklist(["pairing"]),
  against: Against,
  prompt: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const Attribute = v.object({
  kind: v.picklist(["attribute"]),
  by: v.picklist(["accumulated","head","layer"]),
  target: Target,
  prompt: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  position: v.exactOptional(v.union([v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)), v.picklist(["last"])])),
  norm: v.exactOptional(v.picklist(["frozen","recomputed"])),
  transport: v.exactOptional(v.picklist(["plain","transported"])),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const MapPositions = v.object({
  kind: v.picklist(["positions"]),
  by: v.picklist(["accumulated","head","layer"]),
  target: Target,
  prompt: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  norm: v.exactOptional(v.picklist(["frozen","recomputed"])),
  heads: v.exactOptional(v.pipe(v.array(v.pipe(v.string(), v.maxLength(200))), v.maxLength(16384))),
  transport: v.exactOptional(v.picklist(["plain","transported"])),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const RankNeurons = v.object({
  kind: v.picklist(["neurons"]),
  target: Target,
  layer: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  k: v.exactOptional(v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(50))),
  prompt: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  position: v.exactOptional(v.union([v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)), v.picklist(["last"])])),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const ReadPairs = v.object({
  kind: v.picklist(["pairs"]),
  target: Target,
  prompt: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  k: v.exactOptional(v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(50))),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const ReadFeatures = v.object({
  kind: v.picklist(["features"]),
  target: Target,
  prompt: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  position: v.exactOptional(v.union([v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)), v.picklist(["last"])])),
  sae: v.exactOptional(v.nullable(v.pipe(v.string(), v.maxLength(200)))),
  k: v.exactOptional(v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(50))),
  state: v.exactOptional(v.nullable(v.pipe(v.string(), v.maxLength(200)))),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const ReadFeatureTokens = v.object({
  kind: v.picklist(["feature-tokens"]),
  feature: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  prompt: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  sae: v.exactOptional(v.nullable(v.pipe(v.string(), v.maxLength(200)))),
  state: v.exactOptional(v.nullable(v.pipe(v.string(), v.maxLength(200)))),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const ChooseFeature = v.object({
  kind: v.picklist(["feature-target"]),
  feature: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  sae: v.exactOptional(v.nullable(v.pipe(v.string(), v.maxLength(200)))),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const ReadTokenLens = v.object({
  kind: v.picklist(["token-lens"]),
  points: v.pipe(v.array(v.pipe(v.string(), v.maxLength(200))), v.maxLength(4096)),
  start: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  stop: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  target: Target,
  k: v.exactOptional(v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(50))),
  prompt: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  norm: v.exactOptional(v.picklist(["frozen","recomputed"])),
  transport: v.exactOptional(v.picklist(["plain","transported"])),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const ReadNextTokens = v.object({
  kind: v.picklist(["next-tokens"]),
  target: Target,
  prompt: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  neurons: v.exactOptional(v.pipe(v.array(v.pipe(v.string(), v.maxLength(200))), v.maxLength(100))),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const ReadHeadTokens = v.object({
  kind: v.picklist(["head-tokens"]),
  layer: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  head: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  prompt: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  position: v.exactOptional(v.union([v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)), v.picklist(["last"])])),
  source: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  k: v.exactOptional(v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(50))),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const SegmentRange = v.object({
  name: v.pipe(v.string(), v.maxLength(200)),
  start: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  end: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
});
export const ReadSegments = v.object({
  kind: v.picklist(["segments"]),
  by: v.exactOptional(v.nullable(v.union([v.picklist(["line","sentence","tag","turn"]), v.pipe(v.array(SegmentRange), v.maxLength(1000), v.minLength(1))]))),
  prompt: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const MapSegments = v.object({
  kind: v.picklist(["segment-map"]),
  layer: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  head: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  by: v.union([v.picklist(["line","sentence","tag","turn"]), v.pipe(v.array(SegmentRange), v.maxLength(1000), v.minLength(1))]),
  target: Target,
  prompt: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  weighting: v.exactOptional(v.picklist(["contribution","pattern","value"])),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const RankSegmentHeads = v.object({
  kind: v.picklist(["segment-heads"]),
  by: v.union([v.picklist(["line","sentence","tag","turn"]), v.pipe(v.array(SegmentRange), v.maxLength(1000), v.minLength(1))]),
  target: Target,
  prompt: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  weighting: v.exactOptional(v.picklist(["contribution","pattern","value"])),
  destination: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  source: v.exactOptional(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000))),
  k: v.exactOptional(v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(50))),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const Step = v.object({
  target: Target,
  position: v.exactOptional(v.union([v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)), v.picklist(["last"])])),
});
export const Feeds = v.object({
  layer: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  head: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  source: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)),
  by: v.picklist(["key","query","value"]),
});
export const Shown = v.object({
  target: Target,
  prompt: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  position: v.exactOptional(v.union([v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)), v.picklist(["last"])])),
  heads: v.exactOptional(v.pipe(v.array(v.pipe(v.string(), v.maxLength(200))), v.maxLength(16384))),
  norm: v.exactOptional(v.picklist(["frozen","recomputed"])),
  top_k: v.exactOptional(v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(50))),
  ranking: v.exactOptional(v.picklist(["heads","neurons"])),
  layer: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  weighting: v.exactOptional(v.picklist(["contribution","pattern","value"])),
  score: v.exactOptional(v.nullable(v.picklist(["copying","duplicate","entropy","first","induction","previous"]))),
  tab: v.exactOptional(v.picklist(["attention","features","positions","prompts","runs","segments","token-lens","why"])),
  presentation: v.exactOptional(v.picklist(["all","matrix","text"])),
  by: v.exactOptional(v.picklist(["accumulated","head","layer"])),
  padding: v.exactOptional(v.picklist(["found","none"])),
  trail: v.exactOptional(v.pipe(v.array(Step), v.maxLength(32))),
  step: v.exactOptional(v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(31))),
  why: v.exactOptional(v.picklist(["pairs","sides"])),
  feeds: v.exactOptional(v.nullable(Feeds)),
  against: v.exactOptional(v.nullable(Against)),
  run: v.exactOptional(v.picklist(["difference","first","second"])),
  effect: v.exactOptional(v.picklist(["direct","estimate","indirect","total"])),
  replaced_by: v.exactOptional(v.picklist(["mean","other","zero"])),
  segments: v.exactOptional(v.nullable(v.union([v.picklist(["line","sentence","tag","turn"]), v.pipe(v.array(SegmentRange), v.maxLength(1000), v.minLength(1))]))),
  transport: v.exactOptional(v.picklist(["plain","transported"])),
  sae: v.exactOptional(v.nullable(v.pipe(v.string(), v.maxLength(200)))),
  feature: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  lens_rows: v.exactOptional(v.picklist(["layers","points"])),
});
export const WriteCode = v.object({
  kind: v.picklist(["code"]),
  picture: v.picklist(["attention","attention-of-runs","features","heads","layers","lens","positions","prompts","ranking","runs","segments","stream","token-lens","why"]),
  shown: Shown,
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const WritePage = v.object({
  kind: v.picklist(["page"]),
  shown: Shown,
  holds: v.exactOptional(v.picklist(["all","heads","view"])),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const Suggest = v.object({
  kind: v.picklist(["suggest"]),
  prompt: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
  position: v.exactOptional(v.union([v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)), v.picklist(["last"])])),
  k: v.exactOptional(v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(100))),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const CheckToken = v.object({
  kind: v.picklist(["check"]),
  text: v.pipe(v.string(), v.maxLength(20000)),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const ChooseTarget = v.object({
  kind: v.picklist(["target"]),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const FindAnswers = v.object({
  kind: v.picklist(["answers"]),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const ResolveAnswers = v.object({
  kind: v.picklist(["resolve"]),
  name: v.exactOptional(v.nullable(v.pipe(v.string(), v.maxLength(200)))),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const ReadChapter = v.object({
  kind: v.picklist(["chapter"]),
  name: v.pipe(v.string(), v.maxLength(200)),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const Presence = v.object({
  kind: v.picklist(["presence"]),
  view: v.pipe(v.string(), v.maxLength(200), v.minLength(1)),
  state: v.picklist(["away","hidden","shown"]),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const GiveUp = v.object({
  kind: v.picklist(["give-up"]),
  id: v.pipe(v.string(), v.maxLength(200), v.minLength(1)),
  padding: v.exactOptional(v.picklist(["found","none"])),
});
export const CacheRef = v.object({
  id: v.pipe(v.string(), v.maxLength(200)),
  state: v.pipe(v.string(), v.maxLength(200)),
});
export const Question = v.object({
  id: v.pipe(v.string(), v.maxLength(200), v.minLength(1)),
  ask: v.variant("kind", [ReadAttention, ReadThumbnails, BlendAttention, ScoreHeads, Describe, ReadTokens, ListCaches, MeasureEffects, RunWithout, Compare, CompareAttention, CompareTokenLens, PairPositions, Attribute, MapPositions, RankNeurons, ReadPairs, ReadFeatures, ReadFeatureTokens, ChooseFeature, ReadTokenLens, ReadNextTokens, ReadHeadTokens, ReadSegments, MapSegments, RankSegmentHeads, WriteCode, WritePage, Suggest, CheckToken, ChooseTarget, FindAnswers, ResolveAnswers, ReadChapter, Presence, GiveUp]),
  cache: v.exactOptional(v.nullable(CacheRef)),
  gives_turns: v.exactOptional(v.boolean()),
});
export const AttentionBuffer = v.object({
  what: v.picklist(["brings","contribution","pattern","reads","value"]),
  scale: v.exactOptional(v.pipe(v.number(), v.finite())),
  wide: v.exactOptional(v.boolean()),
  triangle: v.exactOptional(v.boolean()),
});
export const AttentionReply = v.object({
  kind: v.picklist(["attention"]),
  layer: v.pipe(v.number(), v.safeInteger()),
  head: v.pipe(v.number(), v.safeInteger()),
  positions: v.pipe(v.number(), v.safeInteger()),
  parts: v.array(AttentionBuffer),
  notes: v.array(v.string()),
  rows: v.exactOptional(v.nullable(Span)),
  columns: v.exactOptional(v.nullable(Span)),
  step: v.exactOptional(v.pipe(v.number(), v.safeInteger())),
  pool: v.exactOptional(v.picklist(["mean","peak"])),
});
export const ThumbnailsReply = v.object({
  kind: v.picklist(["thumbnails"]),
  layer: v.pipe(v.number(), v.safeInteger()),
  side: v.pipe(v.number(), v.safeInteger()),
  positions: v.pipe(v.number(), v.safeInteger()),
  limits: v.array(v.nullable(v.pipe(v.number(), v.finite()))),
  notes: v.array(v.string()),
});
export const BlendReply = v.object({
  kind: v.picklist(["blend"]),
  positions: v.pipe(v.number(), v.safeInteger()),
  heads: v.pipe(v.number(), v.safeInteger()),
  part: AttentionBuffer,
  notes: v.array(v.string()),
  rows: v.exactOptional(v.nullable(Span)),
  columns: v.exactOptional(v.nullable(Span)),
  step: v.exactOptional(v.pipe(v.number(), v.safeInteger())),
});
export const ScoresReply = v.object({
  kind: v.picklist(["scores"]),
  score: v.picklist(["copying","duplicate","entropy","first","induction","previous"]),
  meaning: v.string(),
  low: v.pipe(v.number(), v.finite()),
  high: v.pipe(v.number(), v.finite()),
  notes: v.array(v.string()),
});
export const ComponentTable = v.object({
  kinds: v.array(v.picklist(["attn_bias","attn_out","b_dec","biases","embed","error","feature","final_post","head","layer_out","mid","mixer_out","mlp_bias","mlp_out","neuron","other_features","per_layer_out","pos_embed","position_bias","pre","skip","soft_cap","source"])),
  kind: v.array(v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(1000000000))),
  layer: v.array(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(1000000000)))),
  index: v.array(v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(1000000000)))),
});
export const LensFacts = v.object({
  name: v.string(),
  formula: v.string(),
});
export const KnownSae = v.object({
  name: v.string(),
  site: v.string(),
  state: v.exactOptional(v.string()),
});
export const CacheFacts = v.object({
  kind: v.picklist(["describe"]),
  name: v.string(),
  model: v.string(),
  layers: v.pipe(v.number(), v.safeInteger()),
  heads: v.pipe(v.number(), v.safeInteger()),
  prompts: v.pipe(v.number(), v.safeInteger()),
  positions: v.pipe(v.number(), v.safeInteger()),
  dtype: v.string(),
  device: v.string(),
  bytes: v.pipe(v.number(), v.safeInteger()),
  missing: v.array(v.string()),
  last: v.array(v.pipe(v.number(), v.safeInteger())),
  has_tokens: v.boolean(),
  padding: v.exactOptional(v.pipe(v.number(), v.safeInteger())),
  points: v.exactOptional(ComponentTable),
  generated_from: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger()))),
  lens: v.exactOptional(v.nullable(LensFacts)),
  saes: v.exactOptional(v.array(KnownSae)),
  parallel: v.exactOptional(v.array(v.pipe(v.number(), v.safeInteger(), v.minValue(-1000000000), v.maxValue(1000000000)))),
});
export const TokenLabel = v.object({
  text: v.string(),
  id: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger()))),
  varies: v.exactOptional(v.array(v.string())),
  padding: v.exactOptional(v.boolean()),
  special: v.exactOptional(v.boolean()),
});
export const TokensReply = v.object({
  kind: v.picklist(["tokens"]),
  tokens: v.array(TokenLabel),
});
export const CacheRow = v.object({
  ref: CacheRef,
  names: v.array(v.string()),
  model: v.string(),
  layers: v.pipe(v.number(), v.safeInteger()),
  heads: v.pipe(v.number(), v.safeInteger()),
  prompts: v.pipe(v.number(), v.safeInteger()),
  positions: v.pipe(v.number(), v.safeInteger()),
  dtype: v.string(),
  device: v.string(),
  bytes: v.pipe(v.number(), v.safeInteger()),
  missing: v.array(v.string()),
  age: v.pipe(v.number(), v.finite()),
  changed: v.exactOptional(v.boolean()),
  weights_changed: v.exactOptional(v.boolean()),
  problem: v.exactOptional(v.nullable(v.string())),
});
export const CachesReply = v.object({
  kind: v.picklist(["caches"]),
  kernel: v.string(),
  caches: v.array(CacheRow),
  notes: v.array(v.string()),
  unread: v.exactOptional(v.pipe(v.number(), v.safeInteger())),
  since: v.exactOptional(v.pipe(v.number(), v.safeInteger())),
});
export const EffectsReply = v.object({
  kind: v.picklist(["effects"]),
  of: v.picklist(["heads","stream"]),
  state: v.picklist(["done","stopped","waiting"]),
  turn: v.nullable(v.string()),
  done: v.pipe(v.number(), v.safeInteger()),
  total: v.pipe(v.number(), v.safeInteger()),
  before: v.nullable(v.pipe(v.number(), v.finite())),
  replayed: v.string(),
  replaced_by: v.string(),
  prompts: v.pipe(v.number(), v.safeInteger()),
  notes: v.array(v.string()),
});
export const WithoutReply = v.object({
  kind: v.picklist(["without"]),
  state: v.picklist(["done","waiting"]),
  turn: v.nullable(v.string()),
  replayed: v.string(),
  notes: v.array(v.string()),
});
export const RunSum = v.object({
  measured: v.nullable(v.pipe(v.number(), v.finite())),
  constant: v.pipe(v.number(), v.finite()),
  unexplained: v.nullable(v.pipe(v.number(), v.finite())),
  worst: v.nullable(v.pipe(v.number(), v.finite())),
  tolerance: v.pipe(v.number(), v.finite()),
  measured_from: v.string(),
  own: v.boolean(),
  warnings: v.exactOptional(v.array(v.picklist(["attended-to-padding","training-mode","weights-changed"]))),
});
export const ComparisonReply = v.object({
  kind: v.picklist(["compare"]),
  by: v.picklist(["accumulated","feature","head","layer","neuron","source"]),
  components: ComponentTable,
  first: RunSum,
  second: RunSum,
  difference: RunSum,
  read: v.pipe(v.number(), v.finite()),
  prompts: v.pipe(v.number(), v.safeInteger()),
  notes: v.array(v.string()),
  refusal: v.exactOptional(v.nullable(v.string())),
  missing: v.exactOptional(v.array(v.string())),
});
export const PositionPair = v.object({
  first: v.pipe(v.number(), v.safeInteger()),
  second: v.pipe(v.number(), v.safeInteger()),
});
export const AttentionComparisonReply = v.object({
  kind: v.picklist(["compare-attention"]),
  layer: v.pipe(v.number(), v.safeInteger()),
  head: v.pipe(v.number(), v.safeInteger()),
  positions: v.pipe(v.number(), v.safeInteger()),
  parts: v.array(AttentionBuffer),
  notes: v.array(v.string()),
  step: v.exactOptional(v.pipe(v.number(), v.safeInteger())),
  pairs: v.exactOptional(v.nullable(v.array(PositionPair))),
});
export const LensCell = v.object({
  tokens: v.array(v.string()),
  probabilities: v.array(v.pipe(v.number(), v.finite())),
  answer: v.exactOptional(v.nullable(v.pipe(v.number(), v.finite()))),
  rank: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger()))),
});
export const TokenLensComparisonReply = v.object({
  kind: v.picklist(["compare-token-lens"]),
  points: v.array(v.string()),
  start: v.pipe(v.number(), v.safeInteger()),
  first: v.array(v.array(LensCell)),
  second: v.array(v.array(v.nullable(LensCell))),
  beside: v.array(v.nullable(v.pipe(v.number(), v.safeInteger()))),
  notes: v.array(v.string()),
});
export const PairingReply = v.object({
  kind: v.picklist(["pairing"]),
  how: v.picklist(["index","none","padding","token"]),
  pairs: v.nullable(v.array(PositionPair)),
  first_length: v.pipe(v.number(), v.safeInteger()),
  second_length: v.pipe(v.number(), v.safeInteger()),
  different: v.pipe(v.number(), v.safeInteger()),
  has_tokens: v.boolean(),
});
export const InnerFacts = v.object({
  point: v.string(),
  destination: v.pipe(v.number(), v.safeInteger()),
  source: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger()))),
  versus: v.exactOptional(v.nullable(v.pipe(v.number(), v.safeInteger()))),
  attention: v.exactOptional(v.nullable(v.pipe(v.number(), v.finite()))),
  versus_attention: v.exactOptional(v.nullable(v.pipe(v.number(), v.finite()))),
});
export const AttributionReply = v.object({
  kind: v.picklist(["attribute"]),
  by: v.picklist(["accumulated","feature","head","layer","neuron","source"]),
  components: ComponentTable,
  measured: v.nullable(v.pipe(v.number(), v.finite())),
  constant: v.pipe(v.number(), v.finite()),
  unexplained: v.nullable(v.pipe(v.number(), v.finite())),
  worst: v.nullable(v.pipe(v.number(), v.finite())),
  tolerance: v.pipe(v.number(), v.finite()),
  measured_from: v.string(),
  own: v.boolean(),
  prompts: v.pipe(v.number(), v.safeInteger()),
  notes: v.array(v.string()),
  refusal: v.exactOptional(v.nullable(v.string())),
  per_prompt: v.exactOptional(v.boolean()),
  missing: v.exactOptional(v.array(v.string())),
  inner: v.exactOptional(v.nullable(InnerFacts)),
  warnings: v.exactOptional(v.array(v.picklist(["attended-to-padding","training-mode","weights-changed"]))),
});
export const PositionsReply = v.object({
  kind: v.picklist(["positions"]),
  by: v.picklist(["accumulated","feature","head","layer","neuron","source"]),
  components: ComponentTable,
  positions: v.pipe(v.number(), v.safeInteger()),
  notes: v.array(v.string()),
  missing: v.exactOptional(v.array(v.string())),
});
export const NeuronsReply = v.object({
  kind: v.picklist(["neurons"]),
  components: ComponentTable,
  count: v.pipe(v.number(), v.safeInteger()),
  layers: v.pipe(v.number(), v.safeInteger()),
  total: v.pipe(v.number(), v.finite()),
  bias: v.pipe(v.number(), v.finite()),
  notes: v.array(v.string()),
});
export const PairsReply = v.object({
  kind: v.picklist(["pairs"]),
  query: ComponentTable,
  key: ComponentTable,
  query_others: v.pipe(v.number(), v.safeInteger()),
  key_others: v.pipe(v.number(), v.safeInteger()),
  measured: v.nullable(v.pipe(v.number(), v.finite())),
  notes: v.array(v.string()),
});
export const FeaturesReply = v.object({
  kind: v.picklist(["features"]),
  sae: v.string(),
  cls: v.string(),
  read: v.string(),
  site: v.string(),
  row: ComponentTable,
  components: ComponentTable,
  links: v.array(v.string()),
  active: v.pipe(v.number(), v.safeInteger()),
  others: v.pipe(v.number(), v.finite()),
  total: v.pipe(v.number(), v.finite()),
  measured: v.nullable(v.pipe(v.number(), v.finite())),
  worst: v.nullable(v.pipe(v.number(), v.finite())),
  tolerance: v.pipe(v.number(), v.finite()),
  prompts: v.pipe(v.number(), v.safeInteger()),
  notes: v.array(v.string()),
});
export const FeatureTokensReply = v.object({
  kind: v.picklist(["feature-tokens"]),
  sae: v.string(),
  site: v.string(),
  feature: v.pipe(v.number(), v.safeInteger()),
  positions: v.pipe(v.number(), v.safeInteger()),
  notes: v.array(v.string()),
});
export const FeatureTargetReply = v.object({
  kind: v.picklist(["feature-target"]),
  target: Target,
  notes: v.array(v.string()),
});
export const TokenLensReply = v.object({
  kind: v.picklist(["token-lens"]),
  points: v.array(v.string()),
  start: v.pipe(v.number(), v.safeInteger()),
  cells: v.array(v.array(LensCell)),
  notes: v.array(v.string()),
});
export const NextTokensReply = v.object({
  kind: v.picklist(["next-tokens"]),
  positions: v.pipe(v.number(), v.safeInteger()),
  runner_up: v.array(v.string()),
  count: v.pipe(v.number(), v.safeInteger()),
  adding: v.nullable(v.pipe(v.number(), v.safeInteger())),
  worst: v.nullable(v.pipe(v.number(), v.finite())),
  tolerance: v.pipe(v.number(), v.finite()),
  notes: v.array(v.string()),
  missing: v.exactOptional(v.array(v.string())),
});
export const TokenValue = v.object({
  token: Token,
  value: v.pipe(v.number(), v.finite()),
});
export const HeadTokensReply = v.object({
  kind: v.picklist(["head-tokens"]),
  layer: v.pipe(v.number(), v.safeInteger()),
  head: v.pipe(v.number(), v.safeInteger()),
  source: v.nullable(v.pipe(v.number(), v.safeInteger())),
  output_top: v.array(TokenValue),
  output_bottom: v.array(TokenValue),
  source_top: v.array(TokenValue),
  source_bottom: v.array(TokenValue),
  notes: v.array(v.string()),
});
export const SegmentRule = v.object({
  by: v.picklist(["line","sentence","tag","turn"]),
  count: v.pipe(v.number(), v.safeInteger()),
});
export const SegmentLabel = v.object({
  name: v.string(),
  start: v.pipe(v.number(), v.safeInteger()),
  end: v.pipe(v.number(), v.safeInteger()),
  named: v.exactOptional(v.boolean()),
});
export const SegmentsReply = v.object({
  kind: v.picklist(["segments"]),
  rules: v.array(SegmentRule),
  turns: v.array(SegmentLabel),
  segments: v.array(SegmentLabel),
  notes: v.array(v.string()),
});
export const SegmentMapReply = v.object({
  kind: v.picklist(["segment-map"]),
  layer: v.pipe(v.number(), v.safeInteger()),
  head: v.pipe(v.number(), v.safeInteger()),
  segments: v.array(SegmentLabel),
  meaning: v.string(),
  notes: v.array(v.string()),
});
export const SegmentHeadsReply = v.object({
  kind: v.picklist(["segment-heads"]),
  destination: v.nullable(v.pipe(v.number(), v.safeInteger())),
  source: v.pipe(v.number(), v.safeInteger()),
  heads: v.array(v.string()),
  count: v.pipe(v.number(), v.safeInteger()),
  meaning: v.string(),
  notes: v.array(v.string()),
});
export const CodeReply = v.object({
  kind: v.picklist(["code"]),
  code: v.string(),
});
export const PageReply = v.object({
  kind: v.picklist(["page"]),
  name: v.string(),
});
export const Prediction = v.object({
  token: Token,
  probability: v.pipe(v.number(), v.finite()),
});
export const Suggestions = v.object({
  kind: v.picklist(["suggest"]),
  predictions: v.array(Prediction),
});
export const TokenCheck = v.object({
  kind: v.picklist(["check"]),
  text: v.string(),
  tokens: v.array(Token),
  single: v.boolean(),
  message: v.string(),
  suggestions: v.array(Token),
});
export const TargetReply = v.object({
  kind: v.picklist(["target"]),
  target: Target,
});
export const Variable = v.object({
  name: v.string(),
  words: v.string(),
});
export const AnswersReply = v.object({
  kind: v.picklist(["answers"]),
  variables: v.array(Variable),
  panel: v.nullable(v.string()),
  notes: v.array(v.string()),
});
export const ResolvedReply = v.object({
  kind: v.picklist(["resolve"]),
  name: v.nullable(v.string()),
  target: Target,
  notes: v.array(v.string()),
});
export const ChapterReply = v.object({
  kind: v.picklist(["chapter"]),
  name: v.string(),
  text: v.string(),
});
export const PresenceReply = v.object({
  kind: v.picklist(["presence"]),
});
export const GivenUp = v.object({
  kind: v.picklist(["give-up"]),
});
export const Working = v.object({
  kind: v.picklist(["working"]),
  done: v.pipe(v.number(), v.safeInteger()),
  total: v.pipe(v.number(), v.safeInteger()),
});
export const Failure = v.object({
  code: v.string(),
  message: v.string(),
});
export const Answer = v.object({
  id: v.string(),
  reply: v.exactOptional(v.nullable(v.variant("kind", [AttentionReply, ThumbnailsReply, BlendReply, ScoresReply, CacheFacts, TokensReply, CachesReply, EffectsReply, WithoutReply, ComparisonReply, AttentionComparisonReply, TokenLensComparisonReply, PairingReply, AttributionReply, PositionsReply, NeuronsReply, PairsReply, FeaturesReply, FeatureTokensReply, FeatureTargetReply, TokenLensReply, NextTokensReply, HeadTokensReply, SegmentsReply, SegmentMapReply, SegmentHeadsReply, CodeReply, PageReply, Suggestions, TokenCheck, TargetReply, AnswersReply, ResolvedReply, ChapterReply, PresenceReply, GivenUp, Working]))),
  failure: v.exactOptional(v.nullable(Failure)),
});

/** The check of each kind of request, and of its reply. */
export const REQUESTS = {
  "attention": ReadAttention,
  "thumbnails": ReadThumbnails,
  "blend": BlendAttention,
  "scores": ScoreHeads,
  "describe": Describe,
  "tokens": ReadTokens,
  "caches": ListCaches,
  "effects": MeasureEffects,
  "without": RunWithout,
  "compare": Compare,
  "compare-attention": CompareAttention,
  "compare-token-lens": CompareTokenLens,
  "pairing": PairPositions,
  "attribute": Attribute,
  "positions": MapPositions,
  "neurons": RankNeurons,
  "pairs": ReadPairs,
  "features": ReadFeatures,
  "feature-tokens": ReadFeatureTokens,
  "feature-target": ChooseFeature,
  "token-lens": ReadTokenLens,
  "next-tokens": ReadNextTokens,
  "head-tokens": ReadHeadTokens,
  "segments": ReadSegments,
  "segment-map": MapSegments,
  "segment-heads": RankSegmentHeads,
  "code": WriteCode,
  "page": WritePage,
  "suggest": Suggest,
  "check": CheckToken,
  "target": ChooseTarget,
  "answers": FindAnswers,
  "resolve": ResolveAnswers,
  "chapter": ReadChapter,
  "presence": Presence,
  "give-up": GiveUp,
} as const;
export const REPLIES = {
  "attention": AttentionReply,
  "thumbnails": ThumbnailsReply,
  "blend": BlendReply,
  "scores": ScoresReply,
  "describe": CacheFacts,
  "tokens": TokensReply,
  "caches": CachesReply,
  "effects": EffectsReply,
  "without": WithoutReply,
  "compare": ComparisonReply,
  "compare-attention": AttentionComparisonReply,
  "compare-token-lens": TokenLensComparisonReply,
  "pairing": PairingReply,
  "attribute": AttributionReply,
  "positions": PositionsReply,
  "neurons": NeuronsReply,
  "pairs": PairsReply,
  "features": FeaturesReply,
  "feature-tokens": FeatureTokensReply,
  "feature-target": FeatureTargetReply,
  "token-lens": TokenLensReply,
  "next-tokens": NextTokensReply,
  "head-tokens": HeadTokensReply,
  "segments": SegmentsReply,
  "segment-map": SegmentMapReply,
  "segment-heads": SegmentHeadsReply,
  "code": CodeReply,
  "page": PageReply,
  "suggest": Suggestions,
  "check": TokenCheck,
  "target": TargetReply,
  "answers": AnswersReply,
  "resolve": ResolvedReply,
  "chapter": ChapterReply,
  "presence": PresenceReply,
  "give-up": GivenUp,
  "working": Working,
} as const;

/**
 * For each kind of request, the values of the fields that it leaves out. A field that is null can always be left out.
 */
export const DEFAULTS: Record<string, Record<string, unknown>> = {
  "attention": {
    "position": "last",
    "weighting": "pattern",
    "pool": "peak",
    "padding": "found"
  },
  "thumbnails": {
    "weighting": "pattern",
    "side": 32,
    "padding": "found"
  },
  "blend": {
    "weighting": "pattern",
    "padding": "found"
  },
  "scores": {
    "padding": "found"
  },
  "describe": {
    "padding": "found"
  },
  "tokens": {
    "padding": "found"
  },
  "caches": {
    "padding": "found"
  },
  "effects": {
    "of": "heads",
    "replaced_by": "zero",
    "position": "last",
    "measure": true,
    "stop": false,
    "padding": "found"
  },
  "without": {
    "padding": "found"
  },
  "compare": {
    "position": "last",
    "norm": "frozen",
    "padding": "found"
  },
  "compare-attention": {
    "padding": "found"
  },
  "compare-token-lens": {
    "k": 5,
    "norm": "recomputed",
    "padding": "found"
  },
  "pairing": {
    "padding": "found"
  },
  "attribute": {
    "position": "last",
    "norm": "frozen",
    "transport": "plain",
    "padding": "found"
  },
  "positions": {
    "norm": "frozen",
    "heads": [],
    "transport": "plain",
    "padding": "found"
  },
  "neurons": {
    "k": 5,
    "position": "last",
    "padding": "found"
  },
  "pairs": {
    "k": 8,
    "padding": "found"
  },
  "features": {
    "position": "last",
    "k": 50,
    "padding": "found"
  },
  "feature-tokens": {
    "padding": "found"
  },
  "feature-target": {
    "padding": "found"
  },
  "token-lens": {
    "k": 5,
    "norm": "recomputed",
    "transport": "plain",
    "padding": "found"
  },
  "next-tokens": {
    "neurons": [],
    "padding": "found"
  },
  "head-tokens": {
    "position": "last",
    "k": 5,
    "padding": "found"
  },
  "segments": {
    "padding": "found"
  },
  "segment-map": {
    "weighting": "pattern",
    "padding": "found"
  },
  "segment-heads": {
    "weighting": "pattern",
    "destination": -1,
    "source": -2,
    "k": 8,
    "padding": "found"
  },
  "code": {
    "padding": "found"
  },
  "page": {
    "holds": "heads",
    "padding": "found"
  },
  "suggest": {
    "position": "last",
    "k": 8,
    "padding": "found"
  },
  "check": {
    "padding": "found"
  },
  "target": {
    "padding": "found"
  },
  "answers": {
    "padding": "found"
  },
  "resolve": {
    "padding": "found"
  },
  "chapter": {
    "padding": "found"
  },
  "presence": {
    "padding": "found"
  },
  "give-up": {
    "padding": "found"
  }
};

/** The selection before the user has selected anything. */
export const UNSELECTED: Required<Omit<Selected, "target">> = {
  "prompt": null,
  "position": "last",
  "heads": [],
  "norm": "frozen",
  "top_k": 5,
  "ranking": "heads",
  "layer": null,
  "weighting": "pattern",
  "score": null,
  "tab": "attention",
  "presentation": "matrix",
  "by": "layer",
  "padding": "found",
  "trail": [],
  "step": 0,
  "why": "sides",
  "feeds": null,
  "against": null,
  "run": "difference",
  "effect": "direct",
  "replaced_by": "zero",
  "segments": null,
  "transport": "plain",
  "sae": null,
  "feature": null,
  "lens_rows": "layers"
};

// Opens the panel with recorded replies. The address has options, for example:
// ?dark&measured=misses&ranking=neurons&layer=1&experts=1&mixers=1&positions-only&notes.
// With ?layers=&heads=&positions=&prompts=, the replies have a larger shape. The code below has the other options.
import entry, { type Traits } from "../src/entry/anywidget";
import { firstTraits } from "../src/state/selectable";
import { enlargedKernel } from "./enlarged-kernel";
import { FakeModel, type Kernel } from "./fake-model";
import { measuredKernel } from "./measured-kernel";
import { demoTarget, recordedKernel, SHAPE } from "./recorded-kernel";

const query = new URLSearchParams(location.search);
const number = (name: string, byDefault: number): number => Number(query.get(name) ?? byDefault);
if (query.has("dark")) document.body.setAttribute("data-jp-theme-light", "false");

const layersIn = (name: string): number[] => (query.get(name) ?? "").split(",").filter(Boolean).map(Number);
const NOTES = [
  "0.31 arises in layer 12: its heads (z @ W_O) and bias are not all of `hook_attn_out`.",
  "The model soft-caps its logits at 30: the rows explain the value before the cap; " +
    "the change by the cap (0.0021 at most) is part of the constant.",
];

const traits: Traits = {
  ...firstTraits(),
  cache_name: "cache",
  prompt: query.has("mean") ? null : 0,
  heads: (query.get("pins") ?? "").split(",").filter(Boolean),
  wire_target: demoTarget(),
  ranking: query.get("ranking") === "neurons" ? "neurons" : "heads",
  layer: query.has("layer") ? number("layer", 0) : null,
  weighting: (query.get("weighting") ?? "pattern") as Traits["weighting"],
  presentation: (query.get("presentation") ?? "matrix") as Traits["presentation"],
  score: (query.get("score") ?? null) as Traits["score"],
  tab: (query.get("tab") ?? "attention") as Traits["tab"],
};
const shape = {
  layers: number("layers", SHAPE.layers),
  heads: number("heads", SHAPE.heads),
  positions: number("positions", SHAPE.positions),
  prompts: number("prompts", SHAPE.prompts),
};
const known =
  JSON.stringify(shape) !== JSON.stringify(SHAPE)
    ? enlargedKernel(shape)
    : recordedKernel({
        notes: query.has("notes") ? NOTES : [],
        experts: layersIn("experts"),
        mixers: layersIn("mixers"),
        tokens: !query.has("positions-only"),
        measured: (query.get("measured") ?? "agrees") as "agrees" | "misses" | "unknown",
      });
const kernel = measuredKernel(known, { ...shape, batch: number("batch", 4) });
const refused: Kernel = () => ({
  failure: {
    code: "refused",
    message:
      "This cache holds no residual stream at blocks.3. Run the model again with run_with_cache and no names_filter.",
  },
});
let delay = number("delay", 30);
const model = new FakeModel(
  traits,
  (ask) => (query.has("refuse") && ask.kind === "attribute" ? refused(ask) : kernel(ask)),
  () => delay,
);
Object.assign(window, { model, setDelay: (ms: number) => (delay = ms) });

const el = document.getElementById("root");
if (el) {
  const props = { model: model.asAnyModel(), el, signal: new AbortController().signal };
  entry.render(props as unknown as Parameters<typeof entry.render>[0]);
}

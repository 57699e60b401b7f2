// Opens the panel over a kernel in the page: ?layers=&heads=&positions=&prompts=&dark&measured=misses,
// &ranking=neurons&layer=29&experts=3,4&mixers=1,2&positions-only&notes; or ?fixture for true numbers.
import entry, { type Traits } from "../src/entry/anywidget";
import { firstTraits } from "../src/state/selectable";
import { demoTarget, fakeKernel } from "./fake-kernel";
import { FakeModel, type Kernel } from "./fake-model";
import { type Fixture, fixtureKernel, fixtureTarget } from "./fixture-kernel";

const query = new URLSearchParams(location.search);
const number = (name: string, other: number): number => Number(query.get(name) ?? other);
if (query.has("dark")) document.body.setAttribute("data-jp-theme-light", "false");

const layersIn = (name: string): number[] => (query.get(name) ?? "").split(",").filter(Boolean).map(Number);
const NOTES = [
  "0.31 arises in layer 12: its heads (z @ W_O) and bias are not all of `hook_attn_out`.",
  "The model soft-caps its logits at 30: the rows explain the figure before the cap; what the cap changes (0.0021 at most) is part of the constant.",
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
let kernel: Kernel;
if (query.has("fixture")) {
  const fixture = (await (await fetch("fixture.json")).json()) as Fixture;
  kernel = fixtureKernel(fixture, 30, 9);
  traits.wire_target = fixtureTarget(fixture);
} else {
  kernel = fakeKernel(
    {
      layers: number("layers", 30),
      heads: number("heads", 9),
      positions: number("positions", 15),
      prompts: number("prompts", 8),
    },
    {
      notes: query.has("notes") ? NOTES : [],
      experts: layersIn("experts"),
      mixers: layersIn("mixers"),
      tokens: !query.has("positions-only"),
      measured: (query.get("measured") ?? "agrees") as "agrees" | "misses" | "unknown",
    },
  );
}
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

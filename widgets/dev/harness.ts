// Opens the panel over a kernel in the page: ?layers=&heads=&positions=&prompts=&dark&measured=misses, or ?fixture for true numbers.
import entry, { type Traits } from "../src/anywidget";
import { demoTarget, fakeKernel } from "./fake-kernel";
import { FakeModel, type Kernel } from "./fake-model";
import { type Fixture, fixtureKernel, fixtureTarget } from "./fixture-kernel";

const query = new URLSearchParams(location.search);
const number = (name: string, other: number): number => Number(query.get(name) ?? other);
if (query.has("dark")) document.body.setAttribute("data-jp-theme-light", "false");

const traits: Traits = {
  cache_name: "cache", prompt: query.has("mean") ? null : 0, position: null, norm: "frozen", top_k: 5,
  heads: (query.get("pins") ?? "").split(",").filter(Boolean), wire_target: demoTarget(),
};
let kernel: Kernel;
if (query.has("fixture")) {
  const fixture = (await (await fetch("fixture.json")).json()) as Fixture;
  kernel = fixtureKernel(fixture, 30, 9);
  traits.wire_target = fixtureTarget(fixture);
} else {
  kernel = fakeKernel(
    { layers: number("layers", 30), heads: number("heads", 9), positions: number("positions", 15), prompts: number("prompts", 8) },
    { measured: (query.get("measured") ?? "agrees") as "agrees" | "misses" | "unknown" },
  );
}
const refused: Kernel = () => ({ failure: { code: "refused", message: "This cache holds no residual stream at blocks.3. Run the model again with run_with_cache and no names_filter." } });
let delay = number("delay", 30);
const model = new FakeModel(traits, (ask) => (query.has("refuse") && ask.kind === "attribute" ? refused(ask) : kernel(ask)), () => delay);
Object.assign(window, { model, setDelay: (ms: number) => (delay = ms) });

const el = document.getElementById("root");
if (el) {
  const props = { model: model.asAnyModel(), el, signal: new AbortController().signal };
  entry.render(props as unknown as Parameters<typeof entry.render>[0]);
}

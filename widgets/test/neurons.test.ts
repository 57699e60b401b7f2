import { describe, expect, it, vi } from "vitest";
import { columnsOf } from "../dev/component-table";
import type { FakeModel, Kernel } from "../dev/fake-model";
import { recordedKernel } from "../dev/recorded-kernel";
import { all, key, names, open, text } from "./open";

const FOUND: Kernel = () => ({
  reply: {
    kind: "neurons",
    components: columnsOf(["L2N1043", "L2N7", "L2N9"]),
    count: 1536,
    layers: 1,
    total: 1.61,
    bias: 0.11,
    notes: [],
  },
  buffers: [new Float32Array([0.52, 0.1, -0.3]).buffer as ArrayBuffer],
});
const honest = recordedKernel({ experts: [1] });
const known: Kernel = (ask) => (ask.kind === "neurons" ? FOUND(ask) : honest(ask));
const asks = (model: FakeModel): (number | null | undefined)[] =>
  model.asked.flatMap(({ ask }) => (ask.kind === "neurons" ? [ask.layer] : []));
const neurons = (root: HTMLElement): HTMLElement[] => all(root, '[aria-label="Top neurons"] [role="listitem"]');
const layersPlot = (root: HTMLElement): HTMLElement => {
  const plot = root.querySelector<HTMLElement>(".rs-layers .rs-plot");
  if (!plot) throw new Error("no chart");
  plot.getBoundingClientRect = () => new DOMRect(0, 0, 60, 94); // the embedding's band, 10, and three layers, 28 each
  return plot;
};
const click = (plot: HTMLElement, layer: number): boolean =>
  plot.dispatchEvent(new MouseEvent("click", { clientY: 10 + layer * 28, bubbles: true }));

describe("neurons", () => {
  it("are requested only while they are visible", async () => {
    const { root, model, settled } = await open();
    await settled();
    model.set("prompt", 1);
    await settled();
    expect(asks(model)).toEqual([]);
    const [heads, switched] = all(root, '[aria-label="What is ranked"] button');
    switched?.click();
    await settled();
    expect([asks(model), model.state.ranking]).toEqual([[null], "neurons"]);
    expect(neurons(root)).toHaveLength(6);
    heads?.click();
    model.set("prompt", 0);
    await settled();
    expect(asks(model)).toEqual([null]);
  });

  it("are listed with their numbers, above the sum of all, with sentences about what they add", async () => {
    const { root, settled } = await open({ ranking: "neurons", layer: 2 }, known);
    await settled();
    expect(names(neurons(root))).toEqual(["L2N1043 +0.52", "L2N7 +0.10", "L2N9 −0.30"]);
    const view = root.querySelector<HTMLElement>(".rs-rank-view:not([inert])");
    expect(all(view ?? root, ".rs-ledger tr").map((row) => all(row, "th, .rs-number").map(text).join(" "))).toEqual([
      "1536 neurons +1.61",
      "bias +0.11",
      "MLP of layer 2 +1.72",
    ]);
    expect(all(view ?? root, "button")).toEqual([]); // a neuron cannot be pinned
    const [first, second] = neurons(root);
    first?.focus();
    expect(text(root.querySelector(".rs-sentence"))).toBe(
      "L2N1043 adds +0.52 to the logit difference · click: why is it on?",
    );
    expect(root.querySelector(".rs-axes.rs-has-active")).not.toBeNull();
    key(first, "ArrowDown");
    expect([document.activeElement, second?.tabIndex, first?.tabIndex]).toEqual([second, 0, -1]);
    second?.blur();
    expect(root.querySelector(".rs-axes.rs-has-active")).toBeNull();
  });

  it.each(["mouse", "keyboard"])("of a layer are chosen in the layer chart, and released again (%s)", async (by) => {
    const { root, model, settled } = await open({ heads: ["L0H0"] });
    await settled();
    const plot = layersPlot(root);
    const choose = (): void => {
      if (by === "mouse") return void click(plot, 2.75); // the second half of layer 2
      key(plot, "End");
      key(plot, "Enter");
    };
    click(plot, 2.25); // the attention of this layer: it has no neurons to list
    expect(model.state.ranking).toBe("heads");
    choose();
    await settled();
    expect([model.state.ranking, model.state.layer, asks(model)]).toEqual(["neurons", 2, [2]]);
    expect(root.querySelectorAll(".rs-bar.rs-chosen")).toHaveLength(1);
    choose();
    expect([model.state.ranking, model.state.layer]).toEqual(["neurons", null]);
    choose();
    key(plot, "Escape");
    expect([model.state.layer, model.state.heads]).toEqual([null, ["L0H0"]]); // the layer is cleared before the pins
    key(plot, "Escape");
    expect(model.state.heads).toEqual([]);
  });

  it("of a layer are chosen by stepping, which wraps around at both ends", async () => {
    const { root, model, settled } = await open({ ranking: "neurons" });
    await settled();
    const [back, forth] = all(root, '[aria-label="Layer of the neurons"] button');
    back?.click();
    expect(model.state.layer).toBe(2);
    forth?.click();
    expect(model.state.layer).toBeNull();
    forth?.click();
    expect(model.state.layer).toBe(0);
  });

  it("that cannot be distinguished are refused in the card, and the panel still works", async () => {
    const { root, model, settled } = await open({ ranking: "neurons", layer: 1 }, honest);
    await settled();
    await vi.waitFor(() =>
      expect(text(root.querySelector(".rs-refusal"))).toContain("The MLP of layer 1 cannot be split"),
    );
    expect([root.dataset["state"], text(root.querySelector('[role="alert"]'))]).toEqual(["ready", ""]);
    model.set("layer", 0);
    await vi.waitFor(() => expect(root.querySelector<HTMLElement>(".rs-refusal")?.hidden).toBe(true));
    expect(neurons(root)[0]?.getAttribute("aria-label")).toMatch(/^L0N/);
  });
});

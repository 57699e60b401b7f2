// Every legend, axis and tooltip of the panel, read from the drawn panel.
import { describe, expect, it, vi } from "vitest";
import { css, divergingRgb, sequentialRgb } from "../src/draw/colours";
import { all, key, open, SHAPE, text } from "./open";

const stops = (node: Element | null): string[] => {
  const image = node?.getAttribute("style") ?? "";
  return image.slice(image.indexOf("(") + 1, image.lastIndexOf(")")).split(/, (?=rgb)/);
};
const number = (words: string | null | undefined): number =>
  Number((words ?? "").replace("−", "-").replace(/[^\d.e+-].*/, ""));
const [MINUS, PLUS] = [-1, 1].map((value) => css(divergingRgb(value, 1, "light")));
const [LITTLE, MUCH] = [0, 1].map((value) => css(sequentialRgb(value, "light")));

describe("the head map", () => {
  it("has a scale from negative, at the left, to positive, and its cells have these colours", async () => {
    const { root, settled } = await open();
    await settled();
    const scale = root.querySelector(".rs-bar-scale");
    const [low, high] = all(root, ".rs-bar-scale > span").map((end) => text(end));
    const cells = all(root, ".rs-grid [data-head]").map((cell) => ({
      value: number(cell.getAttribute("aria-label")?.split(" ")[1]),
      colour: cell.style.backgroundColor,
    }));
    const largest = Math.max(...cells.map(({ value }) => Math.abs(value)));
    expect([low?.charAt(0), high?.charAt(0), number(low), number(high)]).toEqual(["−", "+", -largest, largest]);
    expect([...(scale?.children ?? [])].map((child) => child.className)).toEqual(["", "rs-bar-colours", ""]);
    const colours = stops(root.querySelector(".rs-bar-colours"));
    expect([colours[0], colours[1], colours.at(-1)]).toEqual(["to right", MINUS, PLUS]);
    const most = cells.find(({ value }) => Math.abs(value) === largest);
    expect(most?.colour).toBe((most?.value ?? 0) > 0 ? PLUS : MINUS);
  });

  it("has layers from top to bottom and heads from left to right", async () => {
    const { root, settled } = await open();
    await settled();
    expect(all(root, "h3").map(text)).toContain("Heads layer ↓ × head →");
    expect(
      all(root, '.rs-grid [role="row"]').map((row) => all(row, "[data-head]").map((cell) => cell.dataset["head"])),
    ).toEqual(
      Array.from({ length: SHAPE.layers }, (_, layer) =>
        Array.from({ length: SHAPE.heads }, (_, head) => `L${layer}H${head}`),
      ),
    );
  });
});

describe("attention's scale", () => {
  it.each([
    ["pattern", /^0$/, /^1 attention$/, "Colour scale: Attention from 0 to 1", LITTLE, MUCH],
    ["value", /^0$/, /^[\d.]+ × ‖v W_O‖$/, /^Colour scale: Value-weighted from 0 to [\d.]+$/, LITTLE, MUCH],
    [
      "contribution",
      /^−[\d.]+$/,
      /^\+[\d.]+ logits$/,
      /^Colour scale: Contribution from minus \+[\d.]+ to \+[\d.]+$/,
      MINUS,
      PLUS,
    ],
  ] as const)("has the ends and the colours of its values: %s", async (weighting, low, high, label, first, last) => {
    const { root, settled } = await open({ heads: ["L0H0"], weighting });
    await settled();
    const scale = (): HTMLElement | null => root.querySelector(".rs-range .rs-scale");
    await vi.waitFor(() => expect(text(scale()?.lastElementChild)).toMatch(high));
    expect(text(scale()?.firstElementChild)).toMatch(low);
    expect(scale()?.getAttribute("aria-label")).toMatch(label);
    const colours = stops(scale()?.querySelector("i") ?? null);
    expect([colours[0], colours[1], colours.at(-1)]).toEqual(["to right", first, last]);
  });
});

describe("the position map", () => {
  it("has a scale from negative, at the left, to positive, and names a cell by its row and column", async () => {
    const { root, settled } = await open({ tab: "positions" });
    await settled();
    const scale = (): HTMLElement | null => root.querySelector('.rs-scale[aria-label^="colours from"]');
    await vi.waitFor(() =>
      expect(scale()?.getAttribute("aria-label")).toMatch(/^colours from [≤ ]*−[\d.]+ to [≥ ]*\+[\d.]+/),
    );
    expect(text(scale())).toMatch(/^[≤ ]*−[\d.]+ ?[≥ ]*\+[\d.]+$/);
    expect(scale()?.querySelector("i")?.getAttribute("style")).toContain(`to right, ${MINUS}`);
    const field = root.querySelector(".rs-sheet-field");
    const rows = all(root, ".rs-sheet-names > span").map((name) => text(name));
    const columns = all(root, ".rs-sheet-tokens > span").map((name) => text(name));
    expect([rows.length, columns.length]).toEqual(
      [2 * SHAPE.layers, SHAPE.positions].map((count) => expect.toSatisfy((n: number) => n >= count)),
    );
    key(field, "Home"); // the cursor begins at the first row
    key(field, "Home");
    for (const [column, press] of [
      [0, "Home"],
      [1, "ArrowRight"],
      [SHAPE.positions - 1, "End"],
    ] as const) {
      key(field, press);
      const name = columns[column] ?? "";
      expect(text(root.querySelector(".rs-sentence"))).toMatch(
        new RegExp(
          `^${rows[0]} (adds|takes) [+−]?[\\d.]+ (to|from) the logit difference at “${name}” \\(position ` +
            `${column}\\)$`,
        ),
      );
    }
    key(field, "PageDown");
    expect(text(root.querySelector(".rs-sentence"))).toMatch(new RegExp(`^${rows.at(-1)} `));
    key(field, "PageUp");
    key(field, "ArrowUp");
    expect(text(root.querySelector(".rs-sentence"))).toMatch(/^The model’s own logit difference at “/);
  });
});

describe("lens and layers", () => {
  it.each([
    [".rs-lens", "Logit lens: logit difference from "],
    [".rs-layers", "Layers, largest: "],
  ])("have positive values to the right of zero: %s", async (chart, summary) => {
    const { root, settled } = await open();
    await settled();
    const ticks = all(root, `${chart} .rs-ticks > span`).map((tick) => [
      number(text(tick)),
      number(tick.getAttribute("style")?.replace("--at:", "")),
    ]);
    expect(ticks.length).toBe(2);
    expect(ticks.find(([value]) => value === 0)?.[1]).toBeCloseTo(
      number(root.querySelector(`${chart} .rs-zero`)?.getAttribute("style")?.replace("left:", "")),
      6,
    );
    const [[a = 0, at = 0] = [], [b = 0, to = 0] = []] = ticks;
    expect(Math.sign(b - a)).toBe(Math.sign(to - at));
    expect(root.querySelector(`${chart} .rs-plot`)?.getAttribute("aria-label")).toContain(summary);
  });

  it("state what each bar adds or takes away, and what each point comes after", async () => {
    const { root, settled } = await open();
    await settled();
    const read = (chart: string): string[] => {
      const plot = root.querySelector(`${chart} .rs-plot`);
      return Array.from({ length: 20 }, (_, i) => {
        key(plot, i === 0 ? "Home" : "ArrowDown");
        return text(root.querySelector(".rs-sentence"));
      }).filter((said, i, list) => said !== list[i - 1]);
    };
    const bars = read(".rs-layers");
    expect(bars.length).toBeGreaterThanOrEqual(2 * SHAPE.layers);
    for (const said of bars) expect(said).toMatch(/ adds ([+−][\d.]+|0\.00) to the logit difference/);
    expect(bars.map((said) => said.split(":")[0])).toEqual(
      expect.arrayContaining(["0_attn_out", "0_mlp_out", "2_attn_out", "2_mlp_out"]),
    );
    expect(bars.find((said) => said.startsWith("1_attn_out"))).toMatch(
      /^1_attn_out: the attention of layer 1 (adds|takes)/,
    );
    expect(bars.find((said) => said.startsWith("1_mlp_out"))).toMatch(
      /^1_mlp_out: the MLP of layer 1 .+ · click for its neurons$/,
    );
    const points = read(".rs-lens");
    expect(points[0]).toMatch(/^Logit lens before the first layer \(0_pre\): logit difference [+−]?[\d.]+$/);
    expect(points.at(-1)).toMatch(/^Logit lens after the last layer \(final_post\): logit difference [+−]?[\d.]+$/);
  });
});

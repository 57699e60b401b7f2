import { describe, expect, it, vi } from "vitest";
import { componentOf, rowsOf } from "../dev/component-table";
import { visible } from "../src/base/format";
import { divergingRgb, limitOf, sequentialRgb } from "../src/draw/colours";
import { paintSourceContributions } from "../src/draw/contributions";
import { bars, lensX, percent } from "../src/state/axis";
import { half } from "../src/wire/half";

describe("half floats", () => {
  it.each([
    [0x0000, 0],
    [0x8000, -0],
    [0x3c00, 1],
    [0xc000, -2],
    [0x3800, 0.5],
    [0x3555, 0.333251953125],
    [0x7bff, 65504],
    [0x0400, 2 ** -14],
    [0x03ff, 1023 * 2 ** -24],
    [0x0001, 2 ** -24],
    [0x7c00, Infinity],
    [0xfc00, -Infinity],
    [0x7e00, NaN],
  ])("0x%s", (bits, value) => expect(half(bits)).toBe(value));
});

describe("colours", () => {
  it.each(["light", "dark"] as const)("are centred at zero and symmetric in extent (%s)", (theme) => {
    expect(divergingRgb(0, 3, theme)).toEqual(divergingRgb(-0, 3, theme));
    expect(divergingRgb(0, 0, theme)).toEqual(divergingRgb(0, 3, theme));
    const [r, , b] = divergingRgb(3, 3, theme);
    expect(b).toBeGreaterThan(r); // blue adds
    const [r2, , b2] = divergingRgb(-3, 3, theme);
    expect(r2).toBeGreaterThan(b2); // orange takes away
    expect(divergingRgb(9, 3, theme)).toEqual(divergingRgb(3, 3, theme));
    expect(divergingRgb(NaN, 3, theme)).toEqual(divergingRgb(0, 3, theme));
    expect(sequentialRgb(2, theme)).toEqual(sequentialRgb(1, theme));
  });
  it("take the largest absolute value as their limit", () => expect(limitOf([0.5, -2, NaN, Infinity])).toBe(2));
});

describe("bars of source contributions", () => {
  it("show the tallest value of each pixel, up for what adds and down for what takes away", () => {
    const canvas = document.createElement("canvas");
    const fillRect = vi.fn();
    vi.spyOn(canvas, "getContext").mockReturnValue({ scale: vi.fn(), fillRect } as unknown as RenderingContext);
    paintSourceContributions(canvas, Float32Array.of(-3, 1, 0, 0, 2, -1, -0.5, -4), 4, 4, 22, "light");
    expect(fillRect.mock.calls).toEqual([
      [0, 10.5, 4, 1], // zero
      [0, 11, 1, 7.5],
      [2, 6, 1, 5],
      [3, 11, 1, 10],
    ]);
  });
});

describe("axis", () => {
  it("puts a bar next to its step of the lens", () => {
    const attention = bars(rowsOf("embed", "pos_embed", "0_attn_out", "0_mlp_out"))[2];
    expect([attention?.from, attention?.to]).toEqual(["0_pre", "0_mid"].map((name) => lensX(componentOf(name), 1)));
    expect(percent(lensX(componentOf("final_post"), 1), 1)).toBe(100);
  });
  it.each([
    ["attention, MLP", ["2_attn_out", "2_mlp_out"], ["attention 2-2.5", "mlp 2.5-3"]],
    ["a mixer in attention's place", ["2_mixer_out", "2_mlp_out"], ["other 2-2.5", "mlp 2.5-3"]],
    ["only a mixer", ["2_mixer_out"], ["other 2-3"]],
    [
      "both beside an MLP",
      ["2_attn_out", "2_mixer_out", "2_mlp_out"],
      ["attention 2-2.25", "other 2.25-2.5", "mlp 2.5-3"],
    ],
    ["only attention", ["2_attn_out"], ["attention 2-2.5"]],
  ])("puts every sublayer into its layer: %s", (_, labels, places) => {
    expect(
      bars(rowsOf("embed", ...labels))
        .slice(1)
        .map((b) => `${b.kind} ${b.from}-${b.to}`),
    ).toEqual(places);
  });
});

describe("writing", () => {
  it("shows spaces", () => {
    expect([visible(" to"), visible("\n"), visible("")]).toEqual(["·to", "↵", "∅"]);
  });
});

// The scales as colour-blind readers see them: simulated as in Machado, Oliveira and Fernandes (2009), severity 1, and
// measured in CIELAB.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { SIGNS } from "../src/base/look.gen";
import {
  css,
  divergingGradient,
  divergingRgb,
  limitOf,
  type Rgb,
  sequentialGradient,
  sequentialRgb,
} from "../src/draw/colours";
import { levelScale, type MapPicture } from "../src/state/map-picture";
import { gradient } from "../src/views/attention/attention-scale";

type Matrix = readonly [
  readonly [number, number, number],
  readonly [number, number, number],
  readonly [number, number, number],
];
const SIGHT: Record<string, Matrix> = {
  "full colour": [
    [1, 0, 0],
    [0, 1, 0],
    [0, 0, 1],
  ],
  protanopia: [
    [0.152286, 1.052583, -0.204868],
    [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
  ],
  deuteranopia: [
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.01182, 0.04294, 0.968881],
  ],
  tritanopia: [
    [1.255528, -0.076749, -0.178779],
    [-0.078411, 0.930809, 0.147602],
    [0.004733, 0.691367, 0.3039],
  ],
};
const XYZ: Matrix = [
  [0.4124, 0.3576, 0.1805],
  [0.2126, 0.7152, 0.0722],
  [0.0193, 0.1192, 0.9505],
];

const times = (m: Matrix, [a, b, c]: Rgb): Rgb => {
  const row = (i: 0 | 1 | 2): number => m[i][0] * a + m[i][1] * b + m[i][2] * c;
  return [row(0), row(1), row(2)];
};

function lab(rgb: Rgb, sight: Matrix): Rgb {
  const linear = (v: number): number => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const clamp = (v: number): number => Math.min(1, Math.max(0, v));
  const [r, g, b] = times(sight, [linear(rgb[0]), linear(rgb[1]), linear(rgb[2])]);
  const [x, y, z] = times(XYZ, [clamp(r), clamp(g), clamp(b)]);
  const f = (t: number): number => (t > 0.008856 ? Math.cbrt(t) : 7.787 * t + 16 / 116);
  return [116 * f(y) - 16, 500 * (f(x / 0.9505) - f(y)), 200 * (f(y) - f(z / 1.089))];
}

const apart = (a: Rgb, b: Rgb, sight: Matrix): number => {
  const [p, q] = [lab(a, sight), lab(b, sight)];
  return Math.hypot(p[0] - q[0], p[1] - q[1], p[2] - q[2]);
};

// The colours at these values: from −limit to +limit, and from 0 to 1. Colours between two of them are interpolated.
const STOPS = [-1, -0.8, -0.6, -0.3, -0.2, -0.12, -0.04, 0, 0.04, 0.12, 0.2, 0.3, 0.6, 0.8, 1];
const SHARES = [0, 0.03, 0.12, 0.2, 0.35, 0.5, 0.65, 0.8, 1];
describe.each([
  [
    "light",
    "156 63 5, 182 87 24, 208 110 43, 236 177 132, 240 198 164, 244 214 189, 247 233 221, 245 245 242, 228 " +
      "237 242, 205 224 235, 183 212 229, 155 196 221, 58 130 189, 38 97 158, 18 64 127",
    "242 244 242, 228 238 234, 200 224 216, 179 213 203, 140 193 179, 93 164 150, 47 135 121, 31 108 98, 10 72 68",
  ],
  [
    "dark",
    "255 195 141, 232 161 102, 208 126 62, 120 73 42, 95 63 41, 76 55 41, 53 45 40, 35 39 44, 39 49 59, 42 63 " +
      "85, 46 76 107, 50 92 135, 80 150 218, 123 181 237, 165 212 255",
    "34 40 43, 37 48 49, 40 65 64, 42 80 77, 47 107 102, 64 139 130, 81 171 157, 119 201 185, 169 242 222",
  ],
] as const)("%s colours, listed", (theme, diverging, sequential) => {
  const listed = (colours: Rgb[]): string => colours.map((colour) => css(colour).slice(4, -1)).join(", ");
  it("are those of the list", () => {
    expect(listed(STOPS.map((value) => divergingRgb(value * 2, 2, theme)))).toBe(diverging);
    expect(listed(SHARES.map((value) => sequentialRgb(value, theme)))).toBe(sequential);
  });

  it("end where the scale ends, and are the colour of zero if there is no scale or no value", () => {
    const [least = "", most = "", zero] = [
      diverging.split(", ")[0],
      diverging.split(", ").at(-1),
      diverging.split(", ")[7],
    ];
    expect(
      listed(
        [
          [-9, 2],
          [9, 2],
          [-1e-9, 1e-9],
          [1, 0],
          [-1, 0],
          [1, -2],
          [NaN, 2],
          [Infinity, 2],
          [-Infinity, 2],
          [1, NaN],
        ].map(([value = 0, limit = 0]) => divergingRgb(value, limit, theme)),
      ),
    ).toBe([least, most, least, zero, zero, zero, zero, zero, zero, zero].join(", "));
    expect(listed([-1, 2].map((value) => sequentialRgb(value, theme)))).toBe(
      [sequential.split(", ")[0], sequential.split(", ").at(-1)].join(", "),
    );
  });

  it("have the picture's order in legends: upwards from negative to positive, or from low on the left to high", () => {
    const stops = (gradient: string): string[] => gradient.slice(gradient.indexOf("(") + 1, -1).split(", ");
    expect(stops(divergingGradient(theme))).toEqual([
      "to top",
      ...Array.from({ length: 49 }, (_, i) => css(divergingRgb((i - 24) / 24, 1, theme))),
    ]);
    expect(stops(sequentialGradient(theme))).toEqual([
      "to right",
      ...Array.from({ length: 25 }, (_, i) => css(sequentialRgb(i / 24, theme))),
    ]);
    const picture = (low: number): MapPicture => ({
      score: low < 0 ? null : "first",
      values: new Float32Array(0),
      low,
      high: 2,
      largest: 2,
      meaning: "",
      feeds: null,
      runs: null,
      measured: null,
      pending: false,
    });
    expect(stops(levelScale(picture(-2), theme))).toEqual([
      "to right",
      ...Array.from({ length: 49 }, (_, i) => css(divergingRgb(-2 + (4 * i) / 48, 2, theme))),
    ]);
    const shares = (count: number): string[] =>
      Array.from({ length: count }, (_, i) => css(sequentialRgb(i / (count - 1), theme)));
    expect(stops(levelScale(picture(0), theme))).toEqual(["to right", ...shares(49)]);
    expect(stops(gradient("pattern", theme))).toEqual(["to right", ...shares(33)]);
    expect(stops(gradient("contribution", theme))).toEqual([
      "to right",
      ...Array.from({ length: 33 }, (_, i) => css(divergingRgb((i - 16) / 16, 1, theme))),
    ]);
    expect(divergingGradient(theme)).toMatch(/^linear-gradient\(to top, rgb\(\d+ \d+ \d+\), rgb/);
    expect(sequentialGradient(theme)).toMatch(/^linear-gradient\(to right, rgb\(\d+ \d+ \d+\), rgb/);
  });
});

it.each<[number[], number]>([
  [[], 0],
  [[0, -0], 0],
  [[NaN], 0],
  [[-2], 2],
  [[3, -2, 1], 3],
  [[1, -2, -3], 3],
  [[Infinity, 0.5, -Infinity, NaN], 0.5],
  [[1e-30], 1e-30],
])("the largest of %j, whatever its sign, is %s", (values, limit) => {
  expect([limitOf(values), limitOf(Float64Array.from(values))]).toEqual([limit, limit]);
});

describe.each(["light", "dark"] as const)("%s colours", (theme) => {
  it.each(Object.entries(SIGHT))("distinguish what adds from what takes away (%s)", (_, sight) => {
    for (const size of [0.15, 0.3, 0.6, 1])
      expect(apart(divergingRgb(size, 1, theme), divergingRgb(-size, 1, theme), sight)).toBeGreaterThan(
        size < 0.3 ? 10 : 20,
      );
  });

  it.each(Object.entries(SIGHT))("distinguish more from less on every scale (%s)", (_, sight) => {
    const scales = [
      (t: number) => sequentialRgb(t, theme),
      (t: number) => divergingRgb(t, 1, theme),
      (t: number) => divergingRgb(-t, 1, theme),
    ];
    for (const scale of scales) {
      const lightness = [0, 0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 1].map(
        (t) => lab(scale(t), sight)[0] * (theme === "light" ? -1 : 1),
      );
      lightness.slice(1).forEach((next, i) => expect(next).toBeGreaterThan(lightness[i] ?? Infinity));
    }
  });
});

it.each(["light", "dark"] as const)("uses the declared colours of the two signs in the %s theme", (theme) => {
  const css = readFileSync("src/styles/theme.css", "utf8");
  const [light = "", dark = ""] = css.split('&[data-theme="dark"]');
  const declared = (name: string) =>
    new RegExp(`--rs-${name}: (#[0-9a-f]{6});`).exec(theme === "light" ? light : dark)?.[1];
  expect({ plus: declared("plus"), minus: declared("minus") }).toEqual(SIGNS[theme]);
});

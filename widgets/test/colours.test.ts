// The scales as the colour-blind see them: simulated after Machado, Oliveira and Fernandes (2009), severity 1, and measured in CIELAB.
import { describe, expect, it } from "vitest";
import { divergingRgb, type Rgb, sequentialRgb } from "../src/draw/colours";

type Matrix = readonly [readonly [number, number, number], readonly [number, number, number], readonly [number, number, number]];
const SIGHT: Record<string, Matrix> = {
  "full colour": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
  protanopia: [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
  deuteranopia: [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
  tritanopia: [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
};
const XYZ: Matrix = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]];

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

describe.each(["light", "dark"] as const)("%s colours", (theme) => {
  it.each(Object.entries(SIGHT))("tell what adds from what takes away (%s)", (_, sight) => {
    for (const size of [0.15, 0.3, 0.6, 1]) expect(apart(divergingRgb(size, 1, theme), divergingRgb(-size, 1, theme), sight)).toBeGreaterThan(size < 0.3 ? 10 : 20);
  });

  it.each(Object.entries(SIGHT))("tell more from less on every scale (%s)", (_, sight) => {
    const scales = [(t: number) => sequentialRgb(t, theme), (t: number) => divergingRgb(t, 1, theme), (t: number) => divergingRgb(-t, 1, theme)];
    for (const scale of scales) {
      const lightness = [0, 0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 1].map((t) => lab(scale(t), sight)[0] * (theme === "light" ? -1 : 1));
      lightness.slice(1).forEach((next, i) => expect(next).toBeGreaterThan(lightness[i] ?? Infinity));
    }
  });
});

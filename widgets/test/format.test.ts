// Figures as they are written. The kernel's side is held to the same texts: tests/python/test_legible.py.
import { describe, expect, it } from "vitest";
import cases from "../../tests/texts/figures.json";
import { plain, side, signed, vanishes } from "../src/format";

const TEXTS = cases as [number | null, number | null, number, string][];

describe("figures", () => {
  it.each(TEXTS)("%s beside %s, and %s more: %s", (value, largest, more, text) => {
    expect(signed(value ?? NaN, largest ?? NaN, more)).toBe(text);
    expect(plain(value ?? NaN, largest ?? NaN, more)).toBe(text.replace(/^[+−]/, ""));
  });

  it("are coloured as they are written: what reads zero has no colour", () => {
    for (const [value, largest, more, text] of TEXTS) {
      const size = Number(text.replace("−", "-").replace("e−", "e-").replaceAll(",", ""));
      expect([text, side(signed(value ?? NaN, largest ?? NaN, more))]).toEqual([text, size > 0 ? "rs-plus" : size < 0 ? "rs-minus" : ""]);
    }
  });

  it.each([[0, 0, true], [0, 2.24, true], [0.0049, 2.24, true], [0.0051, 2.24, false], [0.0049, 0.0049, false], [0.3, 1834, true], [2, 1834, false], [1e-9, 1e-5, true], [3e-6, 1e-5, false]])(
    "vanish where they are nothing beside the others: %s beside %s", (value, largest, gone) => {
      expect(vanishes(-value, largest)).toBe(gone);
    });
});

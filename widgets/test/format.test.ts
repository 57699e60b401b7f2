// How numbers are written. tests/python/test_legible.py tests the kernel's side with the same texts.
import { describe, expect, it } from "vitest";
import cases from "../../tests/texts/figures.json";
import {
  amount,
  bytes,
  counted,
  headName,
  parseHead,
  plain,
  plural,
  quoted,
  side,
  signed,
  spoken,
  subscript,
  vanishes,
  visible,
} from "../src/base/format";

const TEXTS = cases as [number | null, number | null, number, string][];

describe("numbers", () => {
  it.each(TEXTS)("%s beside %s, with %s more decimals: %s", (value, largest, more, text) => {
    expect(signed(value ?? NaN, largest ?? NaN, more)).toBe(text);
    expect(plain(value ?? NaN, largest ?? NaN, more)).toBe(text.replace(/^[+−]/, ""));
  });

  it("have the colour of the written number: a written zero has no colour", () => {
    for (const [value, largest, more, text] of TEXTS) {
      const size = Number(text.replace("−", "-").replace("e−", "e-").replaceAll(",", ""));
      expect([text, side(signed(value ?? NaN, largest ?? NaN, more))]).toEqual([
        text,
        size > 0 ? "rs-plus" : size < 0 ? "rs-minus" : "",
      ]);
    }
  });

  it.each([
    [0, 0, true],
    [0, 2.24, true],
    [0.0049, 2.24, true],
    [0.0051, 2.24, false],
    [0.0049, 0.0049, false],
    [0.3, 1834, true],
    [2, 1834, false],
    [1e-9, 1e-5, true],
    [3e-6, 1e-5, false],
    [0.004, 0, false],
    [0.004, -2.24, true],
    [0.004, NaN, false],
    [9e-9, 1e-5, true],
    [1e-8, 1e-5, false],
    [4e-8, 9e-5, true],
    [9.1e-8, 9e-5, false],
    [6e-5, 1e-3, false],
    [4e-5, 1e-3, true],
    [9_999, 1e7, true],
    [10_001, 1e7, false],
    [0.4, 9e6, true],
    [0.6, 9e6, false],
  ])("vanish if they are negligible next to the others: %s beside %s", (value, largest, gone) => {
    expect(vanishes(-value, largest)).toBe(gone);
  });

  it.each([
    [0.0006, 2.24, 1, false],
    [0.0004, 2.24, 1, true],
    [0.006, 2.24, 0, false],
    [0.04, 2.24, -1, true],
    [0.06, 2.24, -1, false],
  ])("vanish according to their decimals: %s beside %s, with %s more decimals", (value, largest, more, gone) => {
    expect([vanishes(value, largest, more), vanishes(-value, largest, more)]).toEqual([gone, gone]);
  });

  it.each([
    [-0.003, 2.24, "−0.003"],
    [0.003, 2.24, "+0.003"],
    [-0.0004, 2.24, "−0.0004"],
    [-0.00004, 2.24, "0.00"],
    [-0.00005, 2.24, "−0.00005"],
    [0.00005, 2.24, "+0.00005"],
    [-0.0049, 2.24, "−0.005"],
    [-0.006, 2.24, "−0.01"],
  ])("keep the first digit and the sign of a small number among large ones: %s beside %s", (value, largest, text) =>
    expect(signed(value, largest)).toBe(text),
  );

  it.each<[number, number, number, string]>([
    [0.5, 0.1, 0, "0.50"],
    [0.09, 0.09, 0, "0.090"],
    [0.01, 0.01, 0, "0.010"],
    [0.001, 0.001, 0, "0.0010"],
    [0.0009, 0.0009, 0, "0.00090"],
    [1e-4, 1e-4, 0, "0.00010"],
    [9.9e-5, 9.9e-5, 0, "9.9e−5"],
    [100, 100, 0, "100.0"],
    [99.9, 99.9, 0, "99.90"],
    [999, 999, 0, "999.0"],
    [1000, 1000, 0, "1000"],
    [9_999_999, 0, 0, "9,999,999"],
    [1e7, 0, 0, "1.0e+7"],
    [0, 0, 0, "0.00"],
    [0, 1e8, 0, "0"],
    [9.9e-5, 9.9e-5, -3, "9.9e−5"],
    [5.83, 5.83, -9, "6"],
    [Infinity, 1, 0, "not known"],
    [-Infinity, 1, 0, "not known"],
    [1, Infinity, 0, "1.00"],
  ])("have fewer decimals if they are larger: %s beside %s, with %s more decimals: %s", (value, largest, more, text) =>
    expect(plain(value, largest, more)).toBe(text),
  );

  it.each([
    ["+0.10", "rs-plus"],
    ["−0.10", "rs-minus"],
    ["0.00", ""],
    ["", ""],
    ["not known", ""],
    ["1 + 1", ""],
    ["1 − 1", ""],
  ])("%s has the colour “%s”", (text, colour) => expect(side(text)).toBe(colour));
});

describe("other texts", () => {
  it.each([
    [0, "0 bytes"],
    [999, "999 bytes"],
    [999.4, "999 bytes"],
    [999.5, "1 kB"],
    [1000, "1 kB"],
    [9_400, "9 kB"],
    [9_600, "10 kB"],
    [999_499, "999 kB"],
    [999_500, "1.0 MB"],
    [1e6, "1.0 MB"],
    [9.94e6, "9.9 MB"],
    [9.95e6, "10 MB"],
    [1e7, "10 MB"],
    [2.5e9, "2.5 GB"],
    [999.5e9, "1.0 TB"],
    [3e12, "3.0 TB"],
    [5e15, "5000 TB"],
  ])("%s bytes: %s", (count, text) => expect(bytes(count)).toBe(text));

  it.each([
    [0, "0"],
    [1, "1"],
    [999, "999"],
    [9_999, "9999"],
    [10_000, "10,000"],
    [46_080, "46,080"],
    [123_456, "123,456"],
    [1_234_567, "1,234,567"],
  ])("a count of %s: %s", (count, text) => expect(counted(count)).toBe(text));

  it.each([
    [0, "0"],
    [-0, "0"],
    [0.35, "0.35"],
    [-0.354, "0.35"],
    [0.001, "0.001"],
    [0.00099, "1e-3"],
    [-3.2e-6, "3e-6"],
    [1234, "1200"],
    [1, "1"],
  ])("an unexplained remainder of %s: %s", (value, text) => expect(amount(value)).toBe(text));

  it.each([
    [0, "0 cells"],
    [1, "1 cell"],
    [2, "2 cells"],
    [-1, "-1 cells"],
  ])("%s: %s", (count, text) => expect(plural(count, "cell")).toBe(text));
  it.each([
    [0, "₀"],
    [9, "₉"],
    [10, "₁₀"],
    [1234, "₁₂₃₄"],
  ])("a subscript %s: %s", (number, text) => expect(subscript(number)).toBe(text));

  it.each<[string, [number, number] | null]>([
    ["L0H0", [0, 0]],
    ["L9H6", [9, 6]],
    ["L31H12", [31, 12]],
    ["", null],
    ["L1", null],
    ["L1H", null],
    ["LH1", null],
    ["H1L1", null],
    ["l1h1", null],
    ["L1H2x", null],
    ["xL1H2", null],
    ["L1H2 ", null],
    ["L-1H2", null],
    ["L1.5H2", null],
  ])("the head “%s”", (name, head) => {
    expect(parseHead(name)).toEqual(head && { layer: head[0], head: head[1] });
    if (head) expect(headName(...head)).toBe(name);
  });

  it.each([
    ["", "∅", "∅"],
    [" Mary", "·Mary", "Mary"],
    ["a b", "a·b", "a b"],
    ["\n", "↵", "↵"],
    ["\r\n", "␍↵", "␍↵"],
    ["\t", "⇥", "⇥"],
    ["\u00a0", "⍽", "⍽"],
    ["\u2003", "‹U+2003›", "‹U+2003›"],
    [" \n", "·↵", "·↵"],
    ["Mary ", "Mary·", "Mary"],
    ["x".repeat(60), "x".repeat(60), "x".repeat(60)],
    ["x".repeat(61), `${"x".repeat(59)}…`, `${"x".repeat(59)}…`],
    [" שלום", "\u2068·שלום\u2069", "\u2068שלום\u2069"],
  ])("the token %j: %s, spoken %s", (token, shown, said) =>
    expect([visible(token), spoken(token)]).toEqual([shown, said]),
  );
  it.each([
    ["Mary", "“Mary”"],
    ["", "“”"],
    ["שלום", "“\u2068שלום\u2069”"],
  ])("%j in quotes: %s", (token, text) => expect(quoted(token)).toBe(text));
});

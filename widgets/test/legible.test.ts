import { describe, expect, it } from "vitest";
import cases from "../../tests/texts/shown.json";
import { cut, quoted, spoken, visible } from "../src/base/format";
import { legible, shown } from "../src/base/legible";

const TOWER = `x${"\u0301".repeat(450)}`;

describe("a text from outside", () => {
  it.each(cases as [string, string, string][])("%s", (_, text, expected) => {
    expect(shown(text)).toBe(expected);
    expect(legible(legible(text))).toBe(legible(text));
  });

  it.each([
    ["with", Intl.Segmenter],
    ["without", undefined],
  ])("is cut to a readable length, %s the browser's function that finds characters", (_, segmenter) => {
    const own = Intl.Segmenter;
    Object.defineProperty(Intl, "Segmenter", { value: segmenter, configurable: true });
    try {
      for (const piece of ["x", "👩‍", "क्", "\u0301", "🇫", "가", "\ud800", "\u202e", "e\u0301\u0302"])
        expect([...shown(piece.repeat(100_000))].length).toBeLessThan(1000);
    } finally {
      Object.defineProperty(Intl, "Segmenter", { value: own, configurable: true });
    }
  });

  it("is safe to show as a token, too, with its white space", () => {
    expect(visible(` ${TOWER}`)).toBe(`·x${"\u0301".repeat(4)}‹+446›`);
    expect(visible(" \u202egnirts\n")).toBe("·‹U+202E›gnirts↵");
    expect(visible(" \u0301")).toBe("·◌\u0301");
    expect(visible("\u00a0\u2003a")).toBe("⍽‹U+2003›a");
    expect(visible(" שלום")).toBe("\u2068·שלום\u2069");
    expect(quoted(visible("שלום"))).toBe("“\u2068שלום\u2069”");
    expect(spoken("\u202e a")).toBe("‹U+202E› a");
    expect(cut("\u202eab", 4)).toBe("‹U+…");
    expect(visible(" 👩‍👩‍👧")).toBe("·👩‍👩‍👧");
  });
});

// The rows of a reply: their components and their labels.
import { describe, expect, it } from "vitest";
import cases from "../../tests/texts/components.json";
import { componentsOf, isWhole, shortLabelOf } from "../src/wire/components";
import type { ComponentTable } from "../src/wire/protocol.gen";

const table = (given: Partial<ComponentTable> = {}): ComponentTable => ({
  kinds: ["head", "embed"],
  kind: [0, 1],
  layer: [2, null],
  index: [0, null],
  ...given,
});

describe("a row", () => {
  it.each(cases as [[ComponentTable["kinds"][number], number | null, number | null], string, string][])(
    "of %j is called %s, and %s if there is little room",
    ([kind, layer, index], label, short) => {
      const columns = { kinds: [kind], kind: [0], layer: [layer], index: [index] };
      const [row] = componentsOf(columns);
      expect(row).toEqual({ kind, layer, index, label });
      expect(row && shortLabelOf(row)).toBe(short);
      expect(isWhole(columns)).toBe(true);
    },
  );
  it("is created once", () => {
    const columns = table();
    expect(componentsOf(columns)).toBe(componentsOf(columns));
  });
  it("has a label that is safe to show, whatever the kernel sends", () => {
    const odd = table({ kinds: ["a\u200bb" as "head"], kind: [0, 7], layer: [null, "\u202e" as unknown as number] });
    expect(componentsOf(odd).map(({ label }) => label)).toEqual(["a‹U+200B›b", "‹U+202E›_?"]);
  });
  it("does not exist if there is no table", () =>
    expect([componentsOf(null), componentsOf(undefined)]).toEqual([[], []]));
});

describe("a table from outside", () => {
  it.each<[string, Partial<ComponentTable>]>([
    ["a kind that is not there", { kind: [0, 2] }],
    ["a layer too many", { layer: [2, null, 1] }],
    ["an index too few", { index: [0] }],
    ["a head of no layer", { layer: [null, null] }],
    ["a head without an index", { index: [null, null] }],
    ["an embedding of a layer", { layer: [2, 0] }],
    ["an embedding with an index", { index: [0, 0] }],
  ])("is not complete with %s", (_, given) => {
    expect(isWhole(table())).toBe(true);
    expect(isWhole(table(given))).toBe(false);
  });
});

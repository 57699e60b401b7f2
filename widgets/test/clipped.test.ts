import { describe, expect, it } from "vitest";
import { clippedLimit, endsOf } from "../src/draw/clipped";
import { Hold } from "../src/state/held-scale";
import { fitWords } from "../src/ui/fit-words";
import type { Target } from "../src/wire/protocol.gen";
import { all, open } from "./open";

/** [row, column] with these peaks, in the second of two rows. */
const map = (...peaks: number[]): Float32Array =>
  Float32Array.from([...peaks.map(() => 0), ...peaks.map((peak, i) => (i % 2 ? -peak : peak))]);

describe("the end of the position map's colours", () => {
  it.each<[string, Float32Array, number, number | null, number]>([
    ["leaves out an outlier of the first position", map(80, 1, 2, 4, 3), 5, 4, 4],
    ["leaves out no value within 1.5 times the limit", map(5, 1, 2, 4, 3), 5, 4, 5],
    [
      "is the largest value if the outlier is at a later position, and there are few positions",
      map(1, 80, 2, 4, 3),
      5,
      4,
      80,
    ],
    ["leaves out one column in a hundred", map(1, 80, ...Array.from({ length: 199 }, () => 2)), 201, 200, 2],
    [
      "never leaves out the last column, even if the others are almost zero",
      map(...Array.from({ length: 600 }, () => 0.001), 4),
      601,
      600,
      4,
    ],
    ["ignores values that are not known", map(NaN, 1, NaN, 2), 4, 3, 2],
    ["is the value of the only position", map(7), 1, 0, 7],
    ["is zero if all values are zero", map(0, 0), 2, 1, 0],
  ])("%s", (_, values, columns, last, end) => expect(clippedLimit(values, columns, last)).toBe(Math.fround(end)));

  it("does not count padding: the first position is the first real token", () => {
    expect(clippedLimit(map(900, 80, 1, 2), 4, 3, (column) => column === 0)).toBe(2);
  });

  it("shows at which end values lie beyond it", () => {
    expect(endsOf(Float32Array.of(-3, 2, NaN), { low: -2, high: 2 }, String)).toEqual(["≤ -2", "2"]);
    expect(endsOf(Float32Array.of(-1, 3), { low: -2, high: 2 }, String)).toEqual(["-2", "≥ 2"]);
  });
});

describe("a range that is held", () => {
  it("stays the same for each picture, until the hold ends", () => {
    const hold = new Hold();
    const range = (name: string, high: number): number => hold.range(name, { low: -high, high }).high;
    expect(range("layer", 1)).toBe(1);
    hold.toggle();
    expect([range("layer", 2), range("layer", 9), range("head", 5), range("head", 6)]).toEqual([2, 2, 5, 5]);
    hold.toggle();
    expect(range("layer", 9)).toBe(9);
    hold.toggle();
    // An empty picture has no range.
    expect([range("layer", 0), range("layer", 3), range("layer", 4)]).toEqual([0, 3, 3]);
  });

  it("stays while prompts change, and is marked in the legend; another target ends the hold", async () => {
    const { root, model, settled } = await open({ prompt: 0, tab: "positions" });
    await settled();
    const scale = (): string =>
      root
        .querySelector(".rs-positions")
        ?.parentElement?.querySelector(".rs-lower-controls:not([hidden]) .rs-scale")
        ?.getAttribute("aria-label") ?? "";
    const ends = (label: string): string[] => label.match(/[+−][\d.]+/g) ?? [];
    const before = ends(scale());
    for (const button of all(root, ".rs-hold")) button.click();
    expect(scale()).toContain(", held");
    model.set("prompt", 1);
    await settled();
    expect(ends(scale())).toEqual(before);
    expect(all(root, ".rs-hold").map((button) => button.getAttribute("aria-pressed"))).toEqual(["true", "true"]);
    const target = model.state.wire_target as Target;
    model.set("wire_target", {
      ...target,
      contrasts: target.contrasts.map(({ answer, distractor }) => ({ answer: distractor, distractor: answer })),
    });
    await settled();
    expect(all(root, ".rs-hold").map((button) => button.getAttribute("aria-pressed"))).toEqual(["false", "false"]);
    expect(scale()).not.toContain("held");
  });
});

describe("a sentence that may not fit", () => {
  it("keeps each part whole, and has all parts in its title", () => {
    const node = document.createElement("p");
    fitWords(node, ["“·to” reads “·Mary” 0.79", ", “, 0.5” 0.10"]);
    expect([...node.children].map((part) => part.textContent)).toEqual(["“·to” reads “·Mary” 0.79", ", “, 0.5” 0.10"]);
    expect(node.title).toBe(node.textContent);
    fitWords(node, []);
    expect(node.textContent).toBe("");
  });
});

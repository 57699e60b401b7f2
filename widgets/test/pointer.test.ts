import { describe, expect, it, vi } from "vitest";
import { all, key, open } from "./open";

/** What the pointer does, with times in ms between the heads and before it leaves; and the head that the user meant. */
const WAYS: [string, string, string][] = [
  ["rests on the head on which it leaves", "L1H0 900", "L1H0"],
  ["crosses two heads on its way out", "L1H0 400 L1H1 60 L0H1 60", "L1H0"],
  ["rests on another head on its way out", "L1H0 400 L1H1 250", "L1H1"],
  ["goes on slowly, and does not rest", "L1H0 400 L1H1 190 L0H1 190 L0H0 190 L2H0 190", "L2H0"],
  ["never rests", "L1H0 60 L1H1 60", "L1H1"],
];

describe("the head that stays when the pointer leaves the map", () => {
  it.each(WAYS)("is the one that the user meant: the pointer %s", async (_, way, meant) => {
    const { root, settled } = await open();
    await settled();
    let now = performance.now();
    vi.spyOn(performance, "now").mockImplementation(() => now);
    const send = (type: string, head: string): void =>
      void root.querySelector(head)?.dispatchEvent(new Event(type, { bubbles: type === "pointerover" }));
    for (const step of way.split(" ")) {
      if (step.startsWith("L")) send("pointerover", `.rs-grid [data-head="${step}"]`);
      else now += Number(step);
    }
    send("pointerleave", ".rs-grid");
    vi.restoreAllMocks();
    const shown = (): (string | null)[] =>
      all(root, ".rs-card:not(.rs-placeholder)").map((card) => card.getAttribute("aria-label"));
    expect(shown()).toEqual([`Attention ${meant}`]);
    await settled();
  });

  it("is none, if the preview was closed on the way", async () => {
    const { root, settled } = await open();
    await settled();
    const send = (type: string, head: string): void =>
      void root.querySelector(head)?.dispatchEvent(new Event(type, { bubbles: type === "pointerover" }));
    let now = performance.now();
    vi.spyOn(performance, "now").mockImplementation(() => now);
    send("pointerover", '.rs-grid [data-head="L1H0"]');
    now += 400;
    send("pointerover", '.rs-grid [data-head="L1H1"]');
    key(root, "Escape");
    send("pointerleave", ".rs-grid");
    vi.restoreAllMocks();
    expect(all(root, ".rs-card:not(.rs-placeholder)")).toEqual([]);
  });
});

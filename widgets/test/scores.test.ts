import { describe, expect, it, vi } from "vitest";
import type { Kernel } from "../dev/fake-model";
import { recordedKernel } from "../dev/recorded-kernel";
import { reachOf } from "../src/views/heads/rank-line";
import { all, names, open, text } from "./open";

const cells = (root: HTMLElement): (string | null)[] =>
  names(all(root, '[role="grid"][aria-label="Head map"] [role="gridcell"]'));
const choose = (root: HTMLElement, score: string): void => {
  const select = root.querySelector<HTMLSelectElement>('[aria-label="What colours the head map"]');
  if (!select) throw new Error("there is no choice");
  select.value = score;
  select.dispatchEvent(new Event("change"));
};

describe("head scores", () => {
  it("colour and name the cells; the ranking keeps what each head adds; the sentence has both", async () => {
    const { root, model, settled } = await open();
    await settled();
    expect(model.asked.some(({ ask }) => ask.kind === "scores")).toBe(false);
    const ranking = names(all(root, '[aria-label="Top heads"] button'));
    choose(root, "previous");
    await vi.waitFor(() => expect(cells(root)[0]).toMatch(/^L0H0 previous-token \d\.\d\d$/));
    expect(model.state.score).toBe("previous");
    expect(names(all(root, '[aria-label="Top heads"] button'))).toEqual(ranking);
    expect(text(root.querySelector(".rs-ranked-by"))).toBe("by contribution; the map shows previous-token");
    expect(text(root.querySelector(".rs-bar-scale"))).toBe("0.001.00");
    root.querySelector('[aria-label^="L2H1 "]')?.dispatchEvent(new Event("pointerover", { bubbles: true }));
    expect(text(root.querySelector(".rs-sentence"))).toMatch(
      /^L2H1 adds [+−][\d.]+;.*previous-token \d\.\d\d: the share of/,
    );
    choose(root, "");
    expect(root.querySelector<HTMLElement>(".rs-ranked-by")?.hidden).toBe(true);
    expect(cells(root)[0]).toMatch(/^L0H0 [+−]\d\.\d+$/);
  });

  it("leave the last picture until they are there, and show a refusal only in place of the map", async () => {
    const honest = recordedKernel();
    let delay = 0;
    const refusing: Kernel = (ask) =>
      ask.kind === "scores"
        ? { failure: { code: "missing", message: "Keep `hook_pattern` in the cache." } }
        : honest(ask);
    const { root, model, settled } = await open({}, refusing, () => delay);
    await settled();
    const colours = (): string[] => all(root, '[aria-label="Head map"] [role="gridcell"]').map((c) => c.style.cssText);
    const before = colours();
    delay = Infinity;
    model.set("score", "first");
    expect(colours()).toEqual(before);
    // The numbers of the last picture are not described as scores.
    expect(cells(root)).toEqual(cells(root).map((name) => `${name?.split(" ")[0]} not known yet`));
    delay = 0;
    model.set("score", "induction"); // waits for an earlier request whose answer never comes
    model.set("score", null);
    model.emit("msg:custom", { id: model.asked.at(-1)?.id, failure: { code: "missing", message: "" } }, []);
    model.set("score", "induction");
    await vi.waitFor(() => expect(text(root.querySelector(".rs-map-refusal"))).toBe("Keep hook_pattern in the cache."));
    await settled();
    expect([root.dataset["state"], text(root.querySelector('[role="alert"]'))]).toEqual(["ready", ""]);
    expect(cells(root)).toEqual(cells(root).map((name) => `${name?.split(" ")[0]} not known`));
    expect(text(root.querySelector(".rs-bar-scale"))).toBe("");
    model.set("score", null);
    expect(root.querySelector<HTMLElement>(".rs-map-refusal")?.hidden).toBe(true);
  });
});

describe("the ranking in the mean", () => {
  it("shows a whisker, a dot for each prompt of the line in focus, and describes both", async () => {
    const { root, settled } = await open({ prompt: null });
    await settled();
    const line = root.querySelector<HTMLElement>('[aria-label="Top heads"] button');
    expect(line?.getAttribute("aria-label")).toMatch(/^L\dH\d [+−]\d\.\d+ ± \d\.\d+ over 2 prompts$/);
    expect(all(root, '[aria-label="Top heads"] .rs-whisker').length).toBeGreaterThan(0);
    expect(root.querySelector(".rs-dots")).toBeNull();
    line?.dispatchEvent(new Event("focusin", { bubbles: true }));
    expect(all(root, ".rs-dots")).toHaveLength(1);
    expect(root.querySelector(".rs-dots path")?.getAttribute("d")?.match(/M/g)).toHaveLength(2);
    expect(text(root.querySelector(".rs-sentence"))).toMatch(/^L\dH\d adds [+−][\d.]+ ± [\d.]+/);
  });

  it("has room for every dot on either side of zero", () => {
    const spread = { mean: -1, std: 0.5, prompts: 2, each: new Float32Array([-2.5, 0.5]) };
    expect(
      reachOf([
        { name: "a", value: -1, spread },
        { name: "b", value: 2 },
      ]),
    ).toEqual({ own: 2.5, other: 0.5 });
    expect(reachOf([{ name: "b", value: 2 }])).toEqual({ own: 2, other: 0 });
  });
});

it.each<[string, Parameters<typeof open>[0], string]>([
  ["what each head adds", {}, ""],
  ["a score", { score: "previous" }, "by contribution; the map shows previous-token"],
  [
    "what feeds a head",
    { feeds: { layer: 2, head: 1, source: 2, by: "key" } },
    "by contribution; the map shows what feeds L2H1",
  ],
  ["an effect", { effect: "total" }, "by what each adds in total; hatched: estimated"],
  ["an estimate", { effect: "estimate" }, "by what each adds in total, estimated"],
  [
    "an effect of heads, not of neurons",
    { effect: "total", ranking: "neurons" },
    "by contribution; the map shows what each adds in total",
  ],
])("the ranking says what it ranks by, if the map shows something else: %s", async (_, traits, words) => {
  const { root, settled } = await open(traits);
  await settled();
  const by = root.querySelector<HTMLElement>(".rs-ranked-by");
  expect([text(by), by?.hidden]).toEqual([words, words === ""]);
});

it("a score that is deselected before its reply leaves nothing hidden", async () => {
  const { root, model, settled } = await open({}, recordedKernel(), () => 60);
  await settled();
  model.set("score", "previous");
  await vi.waitFor(() => expect(model.asked.at(-1)?.ask.kind).toBe("scores"));
  model.set("score", null); // while the request is in flight
  await settled();
  await new Promise((done) => setTimeout(done, 400)); // longer than the pause before late texts are hidden
  expect(root.dataset["late"] ?? "").toBe("");
});

// Edge cases of the store: no facts yet, the first and the last, unknown values, a missing head.
import { describe, expect, it } from "vitest";
import { columnsOf } from "../dev/component-table";
import { Store } from "../src/state/store";
import type { CacheFacts, Target } from "../src/wire/protocol.gen";
import { attributionOf, factsOf, flat, storeOf } from "./made";

const FOUR = ["a", "b", "c", "d"];
const set = (store: Store, given: Partial<CacheFacts>): void => {
  store.facts.value = factsOf(given);
};

describe("the position that is read", () => {
  it.each<[string, Partial<CacheFacts> | null, number | null, "found" | "none", number | null]>([
    ["no facts", null, null, "found", null],
    ["no facts, one prompt in view", null, 0, "found", null],
    ["one prompt", { last: [2] }, null, "found", 2],
    ["one prompt that ends at the first position", { last: [0] }, null, "found", 0],
    ["prompts that end together", { last: [2, 2] }, null, "found", 2],
    ["prompts that end at different positions", { last: [2, 1] }, null, "found", null],
    ["prompts of which one ends later", { last: [1, 2, 1] }, null, "found", null],
    ["the first of two prompts", { last: [2, 1] }, 0, "found", 2],
    ["the last of two prompts", { last: [2, 1] }, 1, "found", 1],
    ["a prompt that does not exist", { last: [2, 1] }, 2, "found", null],
    ["padding counted as real", { last: [2, 1], positions: 5 }, null, "none", 4],
    ["padding counted as real, in one prompt", { last: [2, 1], positions: 5 }, 1, "none", 4],
    ["no last positions", { last: [] }, null, "found", null],
  ])("is the last: %s", (_, facts, prompt, padding, at) => {
    const store = new Store();
    store.facts.value = facts && factsOf(facts);
    [store.prompt.value, store.padding.value] = [prompt, padding];
    expect([store.lastPosition.value, store.locked.value, store.destination.value]).toEqual([at, null, at]);
  });
  it.each([
    ["last", null, 2],
    [0, 0, 0],
    [1, 1, 1],
    [2, null, 2],
  ] as const)("is the selected one: %s", (position, locked, destination) => {
    const store = storeOf(["a", "b", "c"]);
    store.position.value = position;
    expect([store.locked.value, store.destination.value]).toEqual([locked, destination]);
  });
  it("is released by a second click on it, and by a click on the last position", () => {
    const store = storeOf(["a", "b", "c"]);
    const after = [0, 0, 1, 2, 2, 0, 1, 1].map((position) => {
      store.togglePosition(position);
      return store.position.value;
    });
    expect(after).toEqual([0, "last", 1, "last", "last", 0, 1, "last"]);
  });
  it("stays the selected one when padding counts as real, and stays the last one if it was the last", () => {
    const store = storeOf(FOUR, [], { last: [2] });
    const after = ([2, 1, "last", 2, 0] as const).map((position) => {
      [store.position.value, store.padding.value] = [position, "found"];
      store.togglePadding();
      return [store.position.value, store.padding.value, store.destination.value];
    });
    expect(after).toEqual([
      ["last", "none", 3],
      [1, "none", 1],
      ["last", "none", 3],
      ["last", "none", 3],
      [0, "none", 0],
    ]);
    store.togglePadding();
    expect(store.padding.value).toBe("found");
  });
});

describe("what is in view", () => {
  it.each<[Partial<CacheFacts> | null, number | null, boolean, string]>([
    [null, null, false, "logit difference"],
    [{ prompts: 1 }, null, false, "logit difference"],
    [{ prompts: 1 }, 0, false, "logit difference"],
    [{ prompts: 2 }, null, true, "mean logit difference"],
    [{ prompts: 2 }, 0, false, "logit difference"],
    [{ prompts: 2 }, 1, false, "logit difference"],
  ])(
    "is the mean over prompts if there are several and none is chosen: %j, prompt %s",
    (facts, prompt, isMean, quantity) => {
      const store = storeOf(FOUR);
      [store.facts.value, store.prompt.value] = [facts && factsOf(facts), prompt];
      expect([store.isMean.value, store.quantity.value]).toEqual([isMean, quantity]);
    },
  );

  it("has another key when the cache, its state, its padding or its description changes", () => {
    const store = new Store();
    const seen: string[] = [];
    const steps: (() => void)[] = [
      () => undefined,
      () => (store.cacheName.value = "x"),
      () => (store.padding.value = "none"),
      () => (store.described.value = 1),
      () => (store.described.value = 2),
      () => (store.ref.value = { id: "x", state: "1" }),
      () => (store.ref.value = { id: "x", state: "2" }),
      () => (store.ref.value = { id: "y", state: "2" }),
    ];
    for (const step of steps) {
      step();
      seen.push(store.dataKey.value);
    }
    expect(seen).toEqual([
      "  found  ",
      "  found x ",
      "  none x ",
      "  none x 1",
      "  none x 2",
      "x 1 none  2",
      "x 2 none  2",
      "y 2 none  2",
    ]);
    store.cacheName.value = "another"; // the name of a kernel's cache is not part of the key
    expect(store.dataKey.value).toBe(seen.at(-1));
  });

  it.each<[string | null, number | null, number | null]>([
    [null, null, null],
    [null, 0, 0],
    [null, 3, 3],
    ["L2H1", null, 2],
    ["L0H1", 3, 0],
    ["L2H1", 0, 2],
    ["MLP", 3, null],
  ])("has an active layer: with the pointer on head %s and layer %s, it is %s", (head, layer, active) => {
    const store = new Store();
    [store.hoveredHead.value, store.hoveredLayer.value] = [head, layer];
    expect(store.activeLayer.value).toBe(active);
  });

  it("has each note once, and only notes on what is shown", () => {
    const store = new Store();
    const noted = (...notes: string[]) => attributionOf([1], { notes });
    [store.headRows.value, store.layerRows.value, store.lens.value] = [noted("a", "b"), noted("b"), noted("c", "a")];
    store.neurons.value = {
      reply: { kind: "neurons", components: columnsOf([]), count: 0, layers: 0, total: 0, bias: 0, notes: ["n"] },
      values: new Float32Array(0),
      layer: null,
    };
    store.scores.value = {
      reply: { kind: "scores", score: "first", meaning: "", low: 0, high: 1, notes: ["s"] },
      values: new Float32Array(0),
    };
    expect(store.notes.value).toEqual(["a", "b", "c"]);
    store.ranking.value = "neurons";
    expect(store.notes.value).toEqual(["a", "b", "c", "n"]);
    store.score.value = "first";
    expect(store.notes.value).toEqual(["a", "b", "c", "n", "s"]);
    expect(new Store().notes.value).toEqual([]);
  });

  it.each<[string, Target, [string, string][], boolean, string | null]>([
    ["nothing known", { contrasts: [] }, [], false, null],
    [
      "no target, and why",
      { contrasts: [] },
      [
        ["target", "no logits"],
        ["heads", "x"],
      ],
      true,
      "no logits",
    ],
    ["no target, and a failure of another view", { contrasts: [] }, [["heads", "x"]], false, null],
    ["a target", { contrasts: [{ answer: [], distractor: [] }] }, [], true, null],
    [
      "a target, and a refusal",
      { contrasts: [{ answer: [], distractor: [] }] },
      [
        ["heads", "x"],
        ["target", "y"],
      ],
      true,
      "x",
    ],
    ["a direction", { contrasts: [], direction: "d" }, [["layers", "z"]], true, null],
  ])("is not drawn, with the reason: %s", (_, target, problems, settled, why) => {
    const store = new Store();
    [store.target.value, store.problems.value] = [target, new Map(problems)];
    expect([store.settled.value, store.reasonNotDrawn("heads")]).toEqual([settled, why]);
  });
});

describe("heads", () => {
  it("have a value if it is known, and the largest value is that of a head", () => {
    const store = storeOf(FOUR, [0.5, -3, NaN, 0, 99]); // the last row is not a head
    const names = ["L0H0", "L0H1", "L1H0", "L1H1", "L2H0", "L0H2", "MLP", ""];
    expect(names.map((name) => store.headValue(name))).toEqual([0.5, -3, null, 0, null, null, null, null]);
    expect(store.largest.value).toBe(3);
    expect(names.map((name) => store.isAbsent(name))).toEqual([false, false, true, false, false, false, false, false]);
    expect([new Store().largest.value, new Store().headValue("L0H0"), new Store().isAbsent("L0H0")]).toEqual([
      0,
      null,
      false,
    ]);
  });
  it.each<[string, string[], string | null, string[], boolean]>([
    ["a layer without attention", [], null, [], true],
    ["not cached", ["heads"], null, [], false],
    ["other components not cached", ["MLPs"], null, [], true],
    ["refused, but their attention is there", [], "no heads", [], false],
    ["refused, and their attention is not cached", [], "no heads", ["attn.hook_pattern"], true],
  ])("are absent, or only unknown: %s", (_, missing, refusal, notCached, absent) => {
    const store = storeOf(FOUR, [], { missing: notCached });
    store.headRows.value = attributionOf([1, 1, NaN, NaN], { missing, refusal });
    expect(store.isAbsent("L1H0")).toBe(absent);
    store.togglePin("L1H0");
    store.hover("L1H0");
    expect([store.heads.value, store.preview.value, store.hoveredHead.value]).toEqual([
      absent ? [] : ["L1H0"],
      absent ? null : "L1H0",
      "L1H0",
    ]);
  });

  it("are stepped through by size, whatever the sign, with wrapping; unknown ones are skipped", () => {
    const store = storeOf(FOUR, [0.5, -3, NaN, 2, 99]);
    const walk = (by: 1 | -1, times: number): (string | null)[] =>
      Array.from({ length: times }, () => {
        store.step(by);
        return store.preview.value;
      });
    expect(walk(1, 4)).toEqual(["L0H1", "L1H1", "L0H0", "L0H1"]);
    expect(walk(-1, 4)).toEqual(["L0H0", "L1H1", "L0H1", "L0H0"]);
    expect([store.hoveredHead.value, store.headMoves.value]).toEqual(["L0H0", 8]);
    store.preview.value = null;
    expect(walk(-1, 1)).toEqual(["L0H0"]);
    store.preview.value = "L9H9";
    expect(walk(1, 1)).toEqual(["L0H1"]);
  });
  it("are not stepped through if there are none", () => {
    for (const store of [new Store(), storeOf(FOUR), storeOf(FOUR, [NaN, NaN, NaN, NaN])]) {
      store.step(1);
      store.step(-1);
      expect([store.preview.value, store.hoveredHead.value, store.headMoves.value]).toEqual([null, null, 0]);
    }
  });
  it("have one value: every step leads to this head", () => {
    const store = storeOf(FOUR, [NaN, -1, NaN, NaN]);
    store.step(1);
    store.step(1);
    store.step(-1);
    expect([store.preview.value, store.headMoves.value]).toEqual(["L0H1", 3]);
  });
});

describe("names of tokens", () => {
  it("are their positions if the cache has no tokens, or none are there yet", () => {
    const store = storeOf(["a", "a", "", "b"], [], { has_tokens: false });
    expect([0, 1, 3, 9].map((at) => store.tokenName(at))).toEqual(["#0", "#1", "#3", "#9"]);
    set(store, { has_tokens: true });
    expect([0, 1, 2, 3, 4].map((at) => [store.tokenText(at), store.tokenMark(at), store.tokenName(at)])).toEqual([
      ["a", "₀", "a₀"],
      ["a", "₁", "a₁"],
      ["∅", "", "∅"],
      ["b", "", "b"],
      ["4", "", "4"],
    ]);
    store.facts.value = null;
    expect(store.tokenName(3)).toBe("b");
  });
  it("are a star if the tokens differ between prompts", () => {
    const store = new Store();
    store.tokens.value = [
      { text: "", varies: [] },
      { text: "", varies: ["x"] },
      { text: "y", varies: ["y", "z"] },
    ];
    expect([0, 1, 2].map((at) => store.tokenText(at))).toEqual(["∅", "∗", "y"]);
  });
});

describe("Esc", () => {
  it("releases a chosen layer first, then the pins; each can be restored", () => {
    const store = storeOf(FOUR, [1, 2, 3, 4]);
    store.toggleLayer(1);
    store.togglePin("L0H1");
    expect([store.layer.value, store.ranking.value, store.chosenLayer.value]).toEqual([1, "neurons", 1]);
    store.escape(false, true);
    expect([store.layer.value, store.heads.value, store.sentence.value && flat(store.sentence.value)]).toEqual([
      null,
      ["L0H1"],
      expect.stringMatching(/^Cleared: layer 1\. .+ restores it\.$/),
    ]);
    store.escape(false, true);
    expect(store.heads.value).toEqual([]);
    store.undo();
    expect([store.heads.value, store.layer.value]).toEqual([["L0H1"], null]);
    store.undo();
    expect([store.layer.value, store.sentence.value]).toEqual([1, ["Restored: layer 1."]]);
    store.undo();
    expect(store.sentence.value).toEqual(["Nothing to restore."]);
  });
  it("releases the first layer, and it can be restored", () => {
    const store = storeOf(FOUR, [1, 2, 3, 4]);
    store.toggleLayer(0);
    store.escape(false, true);
    expect(store.layer.value).toBeNull();
    store.undo();
    expect([store.layer.value, store.sentence.value]).toEqual([0, ["Restored: layer 0."]]);
  });
  it("unlocks a token only in the strip, and clears nothing else with it", () => {
    const store = storeOf(FOUR, [1, 2, 3, 4]);
    store.togglePosition(0);
    store.togglePin("L0H0");
    store.escape(true);
    expect([store.position.value, store.heads.value]).toEqual(["last", ["L0H0"]]);
    store.escape(true);
    expect(store.heads.value).toEqual([]);
    store.undo();
    store.undo();
    expect([store.position.value, store.heads.value]).toEqual([0, ["L0H0"]]);
  });
  it("clears what is pointed at, and has nothing to restore if nothing was pinned or shown", () => {
    const store = storeOf(FOUR, [1, 2, 3, 4]);
    [store.hoveredHead.value, store.hoveredToken.value, store.hoveredLayer.value, store.sentence.value] = [
      "L0H0",
      1,
      1,
      ["x"],
    ];
    const heads = store.heads.value;
    store.escape(false);
    expect([store.hoveredHead.value, store.hoveredToken.value, store.hoveredLayer.value, store.sentence.value]).toEqual(
      [null, null, null, null],
    );
    expect(store.heads.value).toBe(heads);
    store.hover("L0H1");
    store.escape(false);
    expect([store.preview.value, store.sentence.value && flat(store.sentence.value)]).toEqual([
      null,
      expect.stringMatching(/^Cleared: L0H1\. /),
    ]);
    store.undo();
    expect(store.preview.value).toBe("L0H1");
  });
  it("chooses a layer and releases it by a second click, also layer 0, and one chosen while heads are ranked", () => {
    const store = new Store();
    const after = [0, 0, 2, 1, 1].map((layer) => {
      store.toggleLayer(layer);
      return [store.layer.value, store.ranking.value, store.chosenLayer.value];
    });
    expect(after).toEqual([
      [0, "neurons", 0],
      [null, "neurons", null],
      [2, "neurons", 2],
      [1, "neurons", 1],
      [null, "neurons", null],
    ]);
    [store.layer.value, store.ranking.value] = [1, "heads"];
    expect(store.chosenLayer.value).toBeNull();
    store.toggleLayer(1);
    expect([store.layer.value, store.ranking.value]).toEqual([1, "neurons"]);
  });
});

it("a store begins with nothing chosen", () => {
  const {
    cacheName,
    prompt,
    position,
    heads,
    norm,
    topK,
    ranking,
    layer,
    weighting,
    presentation,
    score,
    tab,
    padding,
    folded,
    ownRange,
    pool,
    mapBy,
    theme,
    computing,
    computingNeurons,
    computingScores,
    headMoves,
    outdated,
    described,
    isSaved,
  } = new Store();
  expect(
    [
      cacheName,
      prompt,
      position,
      heads,
      norm,
      topK,
      ranking,
      layer,
      weighting,
      presentation,
      score,
      tab,
      padding,
      folded,
      ownRange,
      pool,
      mapBy,
      theme,
      computing,
      computingNeurons,
      computingScores,
      headMoves,
      outdated,
      described,
      isSaved,
    ].map((signal) => signal.value),
  ).toEqual([
    "",
    null,
    "last",
    [],
    "frozen",
    5,
    "heads",
    null,
    "pattern",
    "matrix",
    null,
    "attention",
    "found",
    [],
    false,
    "peak",
    "layer",
    "light",
    0,
    0,
    0,
    0,
    0,
    0,
    false,
  ]);
});

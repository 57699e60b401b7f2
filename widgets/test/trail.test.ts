// The trail: what is asked becomes the next step, and each step can be shown again, with its position.
import { describe, expect, it } from "vitest";
import { feeding } from "../src/state/questions";
import { fit, read } from "../src/state/selectable";
import { asSelection, fitting, select, selectionOf, shownOf } from "../src/state/selection";
import type { Store } from "../src/state/store";
import { innerTarget, isBefore, layerOf, readAt, targetKey, throughHead } from "../src/state/target";
import {
  ask,
  askNeuron,
  askWho,
  askWhy,
  begin,
  canAskWho,
  canSelect,
  go,
  instead,
  selectPosition,
} from "../src/state/trail";
import { plainWords, stepWords } from "../src/state/trail-words";
import { whyOf } from "../src/state/view-questions";
import type { Target } from "../src/wire/protocol.gen";
import { storeOf } from "./made";

const TEXTS = ["<s>", " Mary", " John", " to"];
const SHAPE = { layers: 6, heads: 4 };
const made = (): Store => {
  const store = storeOf(TEXTS, [], SHAPE);
  store.prompt.value = 0;
  return store;
};
const words = (store: Store): string[] => store.path.value.steps.map((step) => plainWords(stepWords(store, step)));
const READS = { head: "L4H3", destination: 3, source: 2 };

describe("the trail", () => {
  it("has the steps in words, and goes back and forward with their positions", () => {
    const store = made();
    expect([words(store), store.stepAt.value]).toEqual([["·Mary − ·John at ·to"], 0]);
    askWhy(store, READS);
    expect(store.tab.value).toBe("why");
    expect(store.target.value.inner).toMatchObject({ destination: "last", source: 2, versus: "most", side: "query" });
    askWhy(store, { head: "L2H1", destination: 2, source: 0 });
    expect(words(store)).toEqual(["·Mary − ·John at ·to", "L4H3 reads ·John", "L2H1 at ·John reads <s>"]);
    expect([store.stepAt.value, store.destination.value]).toEqual([2, 2]);
    go(store, 0);
    expect([store.target.value.contrasts.length, store.destination.value]).toEqual([1, 3]);
    go(store, 2);
    expect([store.target.value.inner, store.destination.value]).toMatchObject([{ layer: 2 }, 2]);
    go(store, 5);
    expect(store.stepAt.value).toBe(2);
  });

  it.each(["attention", "positions", "why"] as const)(
    "opens at the logits the tab from before the first question: %s",
    (tab) => {
      const store = made();
      store.tab.value = tab;
      askWhy(store, READS);
      askNeuron(store, { layer: 1, index: 7 });
      go(store, 1);
      expect(store.tab.value).toBe("why");
      go(store, 0);
      expect(store.tab.value).toBe(tab);
      go(store, 2);
      store.tab.value = "prompts"; // chosen by the user, so it stays
      go(store, 0);
      expect(store.tab.value).toBe("prompts");
    },
  );

  it("compares what a head reads with the other ordinary token that it reads most", () => {
    const store = made();
    store.tokens.value = store.tokens.value.map((token, at) => ({ ...token, special: at === 0 }));
    const asked = (weights: number[], destination = 3): unknown => {
      store.reading.value = { head: "L4H3", destination, weights: Float32Array.from(weights), contributions: null };
      askWhy(store, READS);
      const { inner } = store.target.value;
      return inner?.kind === "attention" ? inner.versus : null;
    };
    expect(asked([0.6, 0.1, 0.25, 0.05])).toBe(1);
    expect(asked([0.1, 0.05, 0.05, 0.8])).toBe(3);
    expect(asked([0.6, 0.004, 0.395, 0.001])).toBe("most"); // it reads nothing else but the special token
    expect(asked([0.6, 0.1, 0.3, 0], 2)).toBe("most"); // the reading is about another destination
  });

  it("drops later steps when something else is asked, and has at most 32", () => {
    const store = made();
    askWhy(store, READS);
    askNeuron(store, { layer: 1, index: 7 });
    go(store, 1);
    askWho(store, { head: "L2H1", destination: 3, source: 1 });
    expect(words(store)).toEqual(["·Mary − ·John at ·to", "L4H3 reads ·John", "what L2H1 moves from ·Mary"]);
    for (let index = 0; index < 40; index += 1) askNeuron(store, { layer: 1, index });
    expect([store.trail.value.length, store.stepAt.value]).toEqual([32, 31]);
    expect(words(store)[0]).toBe("·Mary − ·John at ·to");
  });

  it("has the same question once, and replaces it by another comparison", () => {
    const store = made();
    askWhy(store, READS);
    askWhy(store, READS);
    expect(store.trail.value).toHaveLength(2);
    const { inner } = store.target.value;
    if (inner?.kind !== "attention") throw new Error("no score");
    instead(store, innerTarget({ ...inner, versus: 1 }));
    expect(words(store)).toEqual(["·Mary − ·John at ·to", "L4H3 reads ·John and not ·Mary"]);
    askNeuron(store, { layer: 1, index: 7 });
    go(store, 1);
    instead(store, innerTarget({ ...inner, side: "key" }));
    expect([words(store).length, store.stepAt.value]).toEqual([3, 1]); // the later step stays
  });

  it("asks the same head at another destination, as a further step, if its source is not later", () => {
    const store = made();
    askWhy(store, { ...READS, source: 1 });
    const { inner } = store.target.value;
    if (inner?.kind !== "attention") throw new Error("no score");
    instead(store, innerTarget({ ...inner, versus: 3 }));
    selectPosition(store, 0);
    expect([store.destination.value, canSelect(store, 0)]).toEqual([3, false]);
    selectPosition(store, 2);
    expect(store.target.value.inner).toMatchObject({ destination: 2, source: 1, versus: "most" });
    expect(store.destination.value).toBe(2);
    store.escape(true); // the selected token is the score's own destination, so Esc keeps it
    expect(store.destination.value).toBe(2);
    expect(words(store).slice(1)).toEqual(["L4H3 reads ·Mary and not ·to", "L4H3 at ·John reads ·Mary"]);
    askWho(store, { head: "L2H1", destination: 2, source: 0 });
    selectPosition(store, 3);
    expect([store.destination.value, words(store).length]).toEqual([2, 4]);
    go(store, 0);
    selectPosition(store, 1);
    expect([store.destination.value, words(store)[0]]).toEqual([1, "·Mary − ·John at ·Mary"]);
  });

  it("ends with a target from Python, and begins again with other logits", () => {
    const store = made();
    askWhy(store, { ...READS, destination: 2 });
    const other: Target = { contrasts: [{ answer: [{ id: 9, text: " x" }], distractor: [] }] };
    begin(store, other);
    expect([words(store), store.destination.value, store.trail.value]).toEqual([["·x at ·to"], 3, []]);
    askWhy(store, READS);
    store.target.value = other; // from Python
    expect(words(store)).toEqual(["·x at ·to"]);
  });

  it("keeps the logits that it began with for the editor of the target", () => {
    const store = made();
    const first = store.target.value;
    askWho(store, READS);
    expect(store.base.value.contrasts).toEqual(first.contrasts);
    expect(store.base.value.through ?? []).toEqual([]);
    askWhy(store, { head: "L2H1", destination: 2, source: 0 });
    expect(store.base.value.contrasts).toEqual(first.contrasts);
  });
});

describe("a trail from outside", () => {
  const far = innerTarget({ kind: "attention", layer: 4, head: 3, destination: "last", source: 2 });
  it("is restored with the selection, and dropped if the cache has no such head or token", () => {
    const store = made();
    askWhy(store, READS);
    const kept = asSelection(JSON.parse(JSON.stringify(selectionOf(store, () => false))));
    if (!kept) throw new Error("not a selection");
    const again = made();
    select(again, kept);
    expect([words(again), again.stepAt.value]).toEqual([words(store), 1]);
    const small = fitting(kept, { ...SHAPE, layers: 3, prompts: 1, positions: 4 });
    expect([small.trail, small.target]).toEqual([[], null]);
    expect(fitting(kept, { ...SHAPE, prompts: 1, positions: 2 }).trail).toEqual([]);
  });

  it.each([
    ["no list", "x"],
    ["too many steps", Array.from({ length: 33 }, () => ({ target: far }))],
    ["a step without a target", [{ position: 1 }]],
    ["a head that is a text", [{ target: { ...far, inner: { ...far.inner, head: "3" } } }]],
    ["an unknown side", [{ target: { ...far, inner: { ...far.inner, side: "value" } } }]],
  ])("is not taken: %s", (_, value) => expect(read("trail", value)).toEqual([]));

  it("loses directions, because a direction exists only in its kernel", () => {
    const target = innerTarget({ kind: "direction", key: "probe", at: "2_pre" });
    const shape = { ...SHAPE, prompts: 1, positions: 4 };
    expect(fit("trail", [{ target }], shape)).toEqual([]);
    expect(fit("target", target, shape).inner ?? null).toBeNull();
    expect(fit("feeds", { layer: 4, head: 9, source: 0, by: "key" }, shape)).toBeNull();
  });
});

describe("the point at which a target is read", () => {
  const neuron = innerTarget({ kind: "neuron", layer: 3, index: 7 });
  const mid = innerTarget({ kind: "direction", key: "p", at: "3_mid" });
  const score = innerTarget({ kind: "attention", layer: 3, head: 0, destination: 3, source: 1, side: "key" });
  it.each([
    ["of a neuron", neuron, [], [true, true, false]],
    ["of a neuron in a layer whose MLP reads the stream before attention", neuron, [3], [true, false, false]],
    ["of a direction after attention", mid, [], [true, true, false]],
    ["of an attention score", score, [], [true, false, false]],
    ["of what a head moves", throughHead(neuron, { layer: 2, head: 1, source: 0 }), [], [false, false, false]],
  ])("has earlier components before it: %s", (_, target, parallel, [last, own, mlp]) => {
    expect(isBefore(target, { kind: "mlp_out", layer: 2 }, parallel)).toBe(last);
    expect(isBefore(target, { kind: "head", layer: 3 }, parallel)).toBe(own);
    expect(isBefore(target, { kind: "mlp_out", layer: 3 }, parallel)).toBe(mlp);
    expect(isBefore(target, { kind: "embed", layer: null }, parallel)).toBe(true);
  });
  it("is at the source for a key, or for what a head moves; else it is at the destination", () => {
    expect([
      readAt(score, 3),
      readAt(neuron, 2),
      readAt(throughHead(neuron, { layer: 2, head: 1, source: 0 }), 2),
    ]).toEqual([1, 2, 0]);
    expect(layerOf(made().target.value, [])).toBe(Infinity);
  });
});

describe("what is asked", () => {
  it("of what a head moves, only where it writes to the target", () => {
    const store = made();
    expect(canAskWho(store, READS)).toBe(true);
    expect(canAskWho(store, { ...READS, destination: 2 })).toBe(false);
    askWhy(store, READS);
    expect([canAskWho(store, READS), canAskWho(store, { ...READS, head: "L1H0" })]).toEqual([false, true]);
  });

  it("of a neuron: not what a head of its layer moves, if both read the same stream", () => {
    const store = made();
    askNeuron(store, { layer: 3, index: 7 });
    const spot = { head: "L3H1", destination: 3, source: 1 };
    expect(canAskWho(store, spot)).toBe(true);
    store.facts.value = store.facts.value && { ...store.facts.value, parallel: [3] };
    expect(canAskWho(store, spot)).toBe(false);
    askWhy(store, spot);
    expect(whyOf(shownOf(store), 3, []).length - whyOf(shownOf(store), 3, store.parallel.value).length).toBe(1);
  });

  it("of a score: both sides, what the head moves, and what it writes", () => {
    const store = made();
    ask(store, store.target.value); // the present target is not a new step
    expect(store.trail.value).toEqual([]);
    askWhy(store, READS);
    const asked = whyOf(shownOf(store), 3, []);
    expect(asked.map(({ kind }) => kind)).toEqual(["attribute", "attribute", "attribute", "head-tokens"]);
    const targets = asked.flatMap((one) => ("target" in one ? [targetKey(one.target)] : []));
    expect(new Set(targets).size).toBe(3);
    store.whyShows.value = "pairs";
    expect(whyOf(shownOf(store), 3, []).map(({ kind }) => kind)).toEqual(["pairs", "head-tokens"]);
  });

  it("of what feeds a head", () => {
    const store = made();
    const of = { layer: 4, head: 3, source: 2 };
    expect(feeding(shownOf(store), { ...of, by: "key" }).target.inner).toMatchObject({ side: "key", source: 2 });
    expect(feeding(shownOf(store), { ...of, by: "value" }).target.through).toEqual([of]);
  });
});

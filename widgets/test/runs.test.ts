// The parts of the tab "Runs": each one exports what it shows. What the values mean is said everywhere: what a head
// adds, or the change of the target with the head of the compared run. The kernel is a fake.
import { describe, expect, it, vi } from "vitest";
import { measuredKernel } from "../dev/measured-kernel";
import { recordedKernel, SHAPE } from "../dev/recorded-kernel";
import { settingOf, shownPictures } from "../src/export/shown-pictures";
import { effectTitle } from "../src/state/effect-words";
import type { Found } from "../src/state/effects";
import { isMinus, scatterOfEffects, spotOf } from "../src/state/scatter";
import type { Values } from "../src/state/selectable";
import { ON_SCREEN, placesOfNames } from "../src/views/runs/scatter-name";
import type { EffectsReply } from "../src/wire/protocol.gen";
import { storeOf } from "./made";
import { all, key, open, text } from "./open";
import { figure, picturesOf, tableOf } from "./pictures";

const AGAINST = { cache: null, prompt: 1 };
const button = (root: HTMLElement, words: string): HTMLElement | undefined =>
  all(root, "button").find((node) => text(node) === words);

async function opened(traits: Parameters<typeof open>[0]) {
  const panel = await open(traits, measuredKernel(recordedKernel(), SHAPE));
  await panel.settled();
  return panel;
}

const FOUND: Found = {
  reply: { kind: "effects", of: "heads", done: 3, total: 4, replaced_by: "zero", replayed: "" } as EffectsReply,
  total: Float32Array.of(3, -2, 0.4, NaN),
  direct: Float32Array.of(3.5, -2.5, 0.2, 0.1),
  estimate: Float32Array.of(2, -1, 0.3, 0.2),
  isPutIn: false,
};
const storeWith = (found: Found, against: Values["against"] = null) => {
  const store = storeOf(["a", "b", "c"], [1, 1, 1, 1]);
  store.effect.value = "total";
  store.against.value = against;
  store.cacheName.value = "corrupted";
  store.effects.heads.found.value = found;
  return store;
};

describe("each part of the tab exports what it shows", () => {
  const exported = (panel: Awaited<ReturnType<typeof opened>>) =>
    panel.model.asked.filter(({ ask }) => ask.kind === "code").map(({ ask }) => ask);
  const choose = async (panel: Awaited<ReturnType<typeof opened>>, part: string): Promise<void> => {
    all(panel.root, '[aria-label="What is compared"] button')
      .find((node) => text(node) === part)
      ?.click();
    await panel.settled();
  };
  const copyCode = async (panel: Awaited<ReturnType<typeof opened>>, title: string) => {
    const before = exported(panel).length;
    button(panel.root, "Export")?.click();
    const line = await vi.waitFor(() => {
      const found = all(panel.root, ".rs-export-line").find((node) => text(node).startsWith(title));
      if (!found) throw new Error(`no line ${title}`);
      return found;
    });
    all(line, "button")
      .find((node) => text(node) === "Code")
      ?.click();
    await vi.waitFor(() => expect(exported(panel).length).toBeGreaterThan(before));
    button(panel.root, "Export")?.click();
    return exported(panel).at(-1);
  };

  it("of two runs: the scatter plot, the attention of the pinned heads, and the stream", async () => {
    const panel = await opened({ against: AGAINST, tab: "runs", heads: ["L1H1"] });
    expect(await copyCode(panel, "Runs: heads")).toMatchObject({ picture: "runs" });
    await choose(panel, "Attention");
    expect(await copyCode(panel, "Runs: attention")).toMatchObject({
      picture: "attention-of-runs",
      shown: { heads: ["L1H1"] },
    });
    await choose(panel, "Stream");
    await vi.waitFor(() => expect(text(panel.root.querySelector(".rs-stream-state"))).toContain("all 18 measured"));
    expect(await copyCode(panel, "Runs: stream")).toMatchObject({ picture: "stream" });
  });

  it("has the code of the effect only while an effect is shown", async () => {
    const panel = await opened({ against: AGAINST, tab: "runs", effect: "total", run: "difference" });
    expect(await copyCode(panel, "Heads")).toMatchObject({ shown: { effect: "direct", run: "difference" } });
    button(panel.root, "total")?.click();
    await vi.waitFor(() => expect(text(panel.root.querySelector(".rs-effects-state"))).toContain("all 6 measured"));
    expect(await copyCode(panel, "Heads")).toMatchObject({ shown: { effect: "total", run: "first" } });
  });

  it("the stream: a row for each cell up to the destination; estimates are hatched, and named", () => {
    const found = { ...FOUND, total: Float32Array.of(1, NaN, 2, 3, NaN, 4), isPutIn: true };
    const estimate = Float32Array.of(1, -5, 2, 3, 0, 4);
    const store = storeWith(found, { cache: "clean", prompt: null });
    const data = { picture: "stream", layers: 2, positions: 3, destination: 1, limit: 6 } as const;
    const picture = { ...data, found: { ...found, estimate } };
    const table = tableOf(picture, settingOf(store));
    expect(table.columns).toEqual(["layer", "position", "token", "value", "estimated", "estimate"]);
    expect([...table.rows]).toEqual([
      [0, 0, "a", 1, "no", 1],
      [0, 1, "b", -5, "yes", -5],
      [1, 0, "a", 3, "no", 3],
      [1, 1, "b", 0, "yes", 0],
    ]);
    const svg = figure(picture, settingOf(store));
    for (const words of [
      "how the logit difference changes if the stream of B replaces that of A",
      "A: corrupted",
      "B: clean",
      "hatched: estimated",
      "+6.00",
    ])
      expect(svg).toContain(words);
    expect(svg.match(/class="hatch"/g)).toHaveLength(2);
  });

  it("the attention: the matrices of A, B and B − A, with their tokens", async () => {
    const panel = await opened({ against: AGAINST, tab: "runs", heads: ["L1H1", "L0H0"] });
    await choose(panel, "Attention");
    const labels = all(panel.root, ".rs-run-row .rs-sources span").map(text);
    const tokens = all(panel.root, ".rs-tokens [data-position]").map((node) =>
      text(node.querySelector(".rs-text") ?? node),
    );
    expect(labels.slice(0, tokens.length)).toEqual(tokens);
    expect(all(panel.root, ".rs-run-row .rs-destinations .rs-marked").length).toBeGreaterThan(0);
    const store = storeOf(["a", "b"]);
    const map = (values: number[]) => ({
      rows: { start: 0, stop: 2 },
      columns: { start: 0, stop: 2 },
      step: 1,
      values: Float32Array.from(values),
    });
    const planes = [map([1, NaN, 0.5, 0.5]), map([1, NaN, 0.2, 0.8]), map([0, NaN, -0.3, 0.3])] as const;
    const maps = [{ head: "L1H1", size: 2, notes: [], pairs: null, planes: [...planes] as [never, never, never] }];
    const picture = { picture: "attention-of-runs", maps } as const;
    const table = tableOf({ ...picture, maps }, settingOf(store));
    expect(table.columns.slice(-3)).toEqual(["first", "second", "difference"]);
    expect([...table.rows][2]?.slice(0, 5)).toEqual(["L1H1", 1, "b", 0, "a"]);
    const svg = figure({ ...picture, maps }, settingOf(store));
    for (const words of ["L1H1 A", "L1H1 B", "L1H1 B − A", "from (source)"]) expect(svg).toContain(words);
  });
});

describe("what an effect means", () => {
  it("is said in the map, the ranking, the line and the plot: what a head adds", async () => {
    const { root } = await opened({ tab: "runs" });
    button(root, "total")?.click();
    await vi.waitFor(() => expect(text(root.querySelector(".rs-effects-state"))).toContain("all 6 measured"));
    expect(text(root.querySelector(".rs-effects-values"))).toBe("what each head adds");
    expect(text(root.querySelector(".rs-ranked-by"))).toContain("what each adds in total");
    expect(text(root.querySelector(".rs-runs .rs-caption"))).toMatch(
      /^What each head adds: directly .* head map: total\./,
    );
    expect(all(root, ".rs-scatter-axis").map(text)).toEqual(["adds directly →", "adds in total ↑"]);
  });

  it("is the change with the output of the compared run, if two runs are compared", async () => {
    const { root, model } = await opened({ tab: "runs", against: AGAINST });
    button(root, "total")?.click();
    expect(model.get("replaced_by")).toBe("other");
    await vi.waitFor(() => expect(text(root.querySelector(".rs-effects-state"))).toContain("all 6 measured"));
    expect(text(root.querySelector(".rs-effects-values"))).toBe("the change with B’s output");
    expect(text(root.querySelector(".rs-ranked-by"))).toContain("by the total change with B’s output");
    expect(text(root.querySelector(".rs-runs .rs-caption"))).toMatch(
      /^How the .* of A changes with B’s output of each/,
    );
    expect(all(root, ".rs-scatter-axis").map(text)).toEqual(["direct change →", "total change ↑"]);
    const cell = root.querySelector('[role="gridcell"][data-head="L1H0"]')?.getAttribute("aria-label");
    expect(cell).toMatch(/^L1H0 change with B’s output: total/);
    key(root.querySelector(".rs-scatter-field"), "ArrowRight");
    expect(text(root.querySelector(".rs-scatter-tip"))).toContain("change with B’s output: direct");

    // What the user then chooses stays chosen.
    const select = root.querySelector<HTMLSelectElement>(".rs-replaced-by select");
    if (!select) throw new Error("no choice");
    select.value = "zero";
    select.dispatchEvent(new Event("change"));
    button(root, "direct")?.click();
    button(root, "total")?.click();
    expect(model.get("replaced_by")).toBe("zero");
  });

  it.each([
    ["a run without heads", { against: { without: ["L1H1"] } }],
    ["the mean, which was chosen before", { against: AGAINST, replaced_by: "mean" }],
    ["one run", {}],
  ] as const)("is not of another run by itself: %s", async (_, traits) => {
    const before = "replaced_by" in traits ? traits.replaced_by : "zero";
    const { root, model } = await opened({ tab: "attention", ...traits } as Parameters<typeof open>[0]);
    button(root, "total")?.click();
    expect(model.get("replaced_by") ?? "zero").toBe(before);
  });

  it("is said in figures", () => {
    expect(effectTitle("estimate", false, "logit")).toBe("what each head adds in total to the logit, estimated");
    expect(effectTitle("indirect", true, "logit")).toBe(
      "the indirect change of the logit with B’s output of each head",
    );
    const store = storeWith({ ...FOUND, isPutIn: true }, { cache: "clean", prompt: null });
    for (const picture of picturesOf(store).filter((one) => one.picture === "heads" || one.picture === "ranking")) {
      const svg = figure(picture, settingOf(store));
      for (const words of ["total change of the", "B: clean"]) expect(svg).toContain(words);
    }
    expect(shownPictures(store).map(({ title }) => title)).toContain("Heads");
  });
});

describe("the scatter plot of effects", () => {
  it.each([
    ["total", [false, true, false]],
    ["indirect", [true, false, false]],
    ["estimate", [false, true, false, false]],
  ] as const)("has the colours of the head map: %s", (effect, orange) => {
    const scatter = scatterOfEffects(FOUND, 2, effect);
    const sorted = [...scatter.heads].sort((a, b) => a.name.localeCompare(b.name));
    expect(sorted.map((head) => isMinus(scatter, head))).toEqual(orange);
  });

  it("is exported with words on its line, its colours and its numbers", () => {
    const store = storeWith(FOUND);
    const measured = { effect: "total", found: FOUND } as const;
    const picture = { picture: "runs", pinned: [], measured, ...scatterOfEffects(FOUND, 2, "total") } as const;
    const svg = figure({ ...picture, pinned: [] }, settingOf(store));
    for (const words of [
      "dashed: total = direct",
      "numbers: indirect, total − direct",
      "blue: total above 0",
      "replaced by zero",
      "3 of 4 measured",
      "adds directly",
      "adds in total",
    ])
      expect(svg).toContain(words);
    expect(svg).not.toContain("the same in both");
    expect(tableOf({ ...picture, pinned: [] }, settingOf(store)).columns).toEqual([
      "head",
      "direct",
      "total",
      "indirect",
    ]);
  });

  it("writes no name across another one, or out of the plot; a pinned head has its name in any case", () => {
    const scatter = { low: -1, high: 5 };
    const heads = Array.from({ length: 30 }, (_, i) => ({ first: (i % 6) * 0.1, second: Math.floor(i / 6) * 0.1 }));
    const at = heads.map((head) => spotOf({ ...scatter, heads: [], axes: ["a", "b", "c"], colouredBy: "value" }, head));
    const names = at.map((spot, i) => ({ name: `L${i}H0`, at: spot, isSure: false }));
    const zero = at[0] ?? { x: 0, y: 0 };
    const places = placesOfNames(names, zero, at, 3.5);
    const boxes = places.flatMap((place, i) => {
      const { x, y } = at[i] ?? zero;
      if (!place) return [];
      const width = ON_SCREEN.width(`L${i}H0`);
      const left = place.isLeft ? x * 3.5 - 6 - width : x * 3.5 + 6;
      return [{ left, right: left + width, middle: y * 3.5 + place.down }];
    });
    expect(boxes.length).toBeGreaterThan(3);
    boxes.forEach((a, i) => {
      expect(a.left >= 0 && a.right <= 350).toBe(true);
      for (const b of boxes.slice(i + 1))
        expect(a.right <= b.left || b.right <= a.left || Math.abs(a.middle - b.middle) >= 11 - 0.11).toBe(true);
    });
    const sure = placesOfNames(
      names.map((name) => ({ ...name, isSure: true })),
      zero,
      at,
      3.5,
    );
    expect(sure.every((place) => place !== null)).toBe(true);
  });
});

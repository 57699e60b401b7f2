// Two compared runs: where each part of the reply is shown, from the choice in the header to the exported table. The
// replies are recorded. The expected sums are computed here from the buffers.
import { describe, expect, it, vi } from "vitest";
import type { Kernel } from "../dev/fake-model";
import { recordedKernel } from "../dev/recorded-kernel";
import { everything } from "../src/draw/plane";
import { settingOf } from "../src/export/shown-pictures";
import { headsFigure } from "../src/export/svg/heads";
import { SNAPSHOT_EVENT, type SnapshotRequest } from "../src/snapshot/recorder";
import type { Entry, Snapshot } from "../src/snapshot/snapshot";
import { checkSnapshot } from "../src/snapshot/snapshot-check";
import type { Attribution } from "../src/state/attribution";
import { choicesOf, comparisonOf, runNames, several } from "../src/state/comparison";
import { mostDifferent } from "../src/state/ranked";
import { nearestTo, scatterOf, spotOf, within } from "../src/state/scatter";
import { read } from "../src/state/selectable";
import type { WarningKind } from "../src/state/warnings";
import { rowSum, verdict } from "../src/views/header/ledger";
import { endsOfPairs } from "../src/views/heads/pair-line";
import { cellSentence, type RunMaps, runMapsOf } from "../src/views/runs/run-maps";
import { placeOfName } from "../src/views/runs/scatter-name";
import type { Ask } from "../src/wire/client";
import type { CacheFacts, CacheRow } from "../src/wire/protocol.gen";
import { attributionOf, factsOf, flat, storeOf } from "./made";
import { all, key, open, text } from "./open";
import { figure, picturesOf, tableOf } from "./pictures";

const LAST = {
  by: "head",
  kind: "compare",
  prompt: 0,
  position: "last",
  norm: "frozen",
  against: { prompt: 1 },
} as const;

function recordedComparison(by: "head" | "layer" | "accumulated" = "head") {
  const target = { contrasts: [], direction: null };
  const outcome = recordedKernel()({ ...LAST, by, target } as Ask);
  if (!("reply" in outcome) || outcome.reply.kind !== "compare") throw new Error("not recorded");
  const buffers = (outcome.buffers ?? []).map((buffer) => new DataView(buffer));
  return { comparison: comparisonOf({ reply: outcome.reply, buffers }), reply: outcome.reply, buffers };
}

const cacheRow = (names: string[], given: Partial<CacheRow> = {}): CacheRow => ({
  ref: { id: names[0] ?? "", state: "0.0.0" },
  names,
  model: "m",
  layers: 3,
  heads: 2,
  prompts: 2,
  positions: 6,
  dtype: "float32",
  device: "cpu",
  bytes: 1,
  missing: [],
  age: 0,
  ...given,
});

describe("a comparison", () => {
  it("has the rows of both runs and of their difference, each with its own sum", () => {
    const { comparison, reply } = recordedComparison();
    for (const run of ["first", "second", "difference"] as const) {
      const data = comparison[run];
      expect(verdict(data).kind, run).toBe("agrees");
      expect(rowSum(data), run).toBeCloseTo(reply[run].measured ?? NaN, 5);
    }
    comparison.difference.rows.forEach((value, row) => {
      const [first = NaN, second = NaN] = [comparison.first.rows[row], comparison.second.rows[row]];
      expect(value).toBeCloseTo(second - first, 5);
    });
    const [written, whole] = [comparison.written.reduce((sum, value) => sum + value, 0), rowSum(comparison.difference)];
    expect(comparison.read).toBeCloseTo(whole - written, 5);
  });

  it("is checked with its own rows: a difference that they do not add up to is reported", () => {
    const { reply, buffers } = recordedComparison();
    const difference = { ...reply.difference, measured: (reply.difference.measured ?? 0) + 1 };
    expect(verdict(comparisonOf({ reply: { ...reply, difference }, buffers }).difference).kind).toBe("contradicts");
    const missed = { ...difference, unexplained: 1, worst: 1 };
    expect(verdict(comparisonOf({ reply: { ...reply, difference: missed }, buffers }).difference).kind).toBe("misses");
  });

  it.each([
    [2, { prompt: 1 }, ["prompt 2", "prompt 1"]],
    [0, { cache: "clean" }, ["cache", "clean"]],
    [null, { cache: "clean" }, ["cache", "clean"]],
    [0, { cache: "clean", prompt: 0 }, ["cache", "clean"]],
    [0, { cache: "clean", prompt: 3 }, ["cache, prompt 0", "clean, prompt 3"]],
    [0, { without: ["L1H1"] }, ["as cached", "without L1H1 (zeroed)"]],
    [0, { without: ["L1H1"], replaced_by: "mean" as const }, ["as cached", "without L1H1 (mean over prompts)"]],
  ])("names its runs: prompt %j against %j", (prompt, against, names) => {
    expect(runNames("cache", prompt, against)).toEqual(names);
  });

  it.each([
    ["logit", "logits"],
    ["mean logit difference", "mean logit differences"],
    ["attention score", "attention scores"],
    ["contribution of L2H1", "values"],
    ["value along the direction", "values"],
  ])("has a plural for its quantity: %s, %s", (one, many) => expect(several(one)).toBe(many));

  it("is possible with each other prompt and each other cache; a cache of another shape is listed and refused", () => {
    const rows = [
      cacheRow(["cache", "same"]),
      cacheRow(['runs["clean"]', "clean"]),
      cacheRow(["large"], { layers: 5 }),
      cacheRow(["broken"], { problem: "It has no tensors." }),
    ];
    const facts = factsOf({ layers: 3, heads: 2, prompts: 3 });
    const choices = choicesOf(facts, { cache: "cache", prompt: 1 }, rows);
    expect(choices.map(({ name, refused }) => [name, refused])).toEqual([
      ["prompt 0", false],
      ["prompt 2", false],
      ['runs["clean"]', false],
      ["large", true],
      ["broken", true],
    ]);
    expect(choices[3]?.words).toBe("another shape: 5 × 2 heads, 2 × 6");
    expect(choices[4]?.words).toBe("It has no tensors.");
    expect(choices[2]?.against).toEqual({ cache: 'runs["clean"]', prompt: null });
    expect(choicesOf(factsOf({ prompts: 1 }), { cache: "cache", prompt: 0 }, [])).toEqual([]);
  });

  it("ranks by the size of the difference, and leaves out heads that do not differ", () => {
    const first = Float32Array.of(1, -2, 0.5, NaN);
    const second = Float32Array.of(1, 1, -0.5, NaN);
    const difference = Float32Array.of(0, 3, -1, NaN);
    const pairs = mostDifferent({ first, second, difference }, 2, 3);
    expect(pairs).toEqual([
      { name: "L0H1", first: -2, second: 1, value: 3 },
      { name: "L1H0", first: 0.5, second: -0.5, value: -1 },
    ]);
    expect(endsOfPairs(pairs)).toEqual({ low: -2, high: 1 });
    expect(endsOfPairs([])).toEqual({ low: 0, high: 0 });
  });
});

describe("what is restored from outside", () => {
  it.each([
    [
      { cache: "clean", prompt: 2 },
      { cache: "clean", prompt: 2 },
    ],
    [{ prompt: 1 }, { prompt: 1 }],
    [{ cache: 3 }, null],
    ["clean", null],
    [{ cache: "x".repeat(300) }, null],
  ])("against %j", (given, wanted) => {
    const found = read("against", given);
    expect(found && Object.fromEntries(Object.entries(found).filter(([, value]) => value !== null))).toEqual(wanted);
  });
  it("a run that does not exist", () => expect(read("run", "third")).toBe("difference"));
});

describe("a panel that compares", () => {
  const compared = async (more = {}) => {
    const panel = await open({ against: { cache: null, prompt: 1 }, heads: ["L1H0"], ...more });
    await panel.settled();
    return panel;
  };
  const cellOf = (root: HTMLElement, name: string): string =>
    root.querySelector(`[data-head="${name}"][role=gridcell]`)?.getAttribute("aria-label") ?? "";

  it("shows the difference, and says in each cell what both runs add", async () => {
    const { root } = await compared();
    const { comparison } = recordedComparison();
    const [first = NaN, second = NaN] = [comparison.first.rows[3], comparison.second.rows[3]];
    const written = [second - first, first, second].map((value) => Math.abs(value).toFixed(2));
    const numbers = [...cellOf(root, "L1H1").matchAll(/[\d.]+/g)].map(([number]) => number).slice(2);
    expect(numbers).toEqual(written);
    expect(text(root.querySelector(".rs-badge"))).toContain("the difference of the two runs’ own logit differences");
    expect(text(root.querySelector(".rs-read-line"))).toMatch(
      /^[+−][\d.]+ of [+−][\d.]+ is due to the norm or the target, not to what is written$/,
    );
    expect(all(root, ".rs-ranking .rs-pair").length).toBe(6);
    expect(all(root, ".rs-ranking .rs-pair :is(.rs-plus, .rs-minus)")).toEqual([]); // only the difference has a sign
    expect(text(root.querySelector(".rs-rank h3"))).toBe("Top heads: B − A");
    expect(all(root, ".rs-rank-choice .rs-run-key b").map(text)).toEqual(["prompt 0", "prompt 1"]);
    expect(root.querySelector(".rs-rank-choice .rs-run-key")?.getAttribute("title")).toContain(
      "between A (prompt 0) and B (prompt 1)",
    );
    expect(all(root, ".rs-lens .rs-line").length).toBe(2);
  });

  it("switches to one run with a click, and shares it", async () => {
    const { root, model, settled } = await compared();
    const ends = (): string[] => all(root, ".rs-headmap .rs-bar-scale span").map(text);
    const scales: string[][] = [];
    for (const [run, words] of [
      ["second", "run B’s own logit difference"],
      ["first", "the model’s own logit difference"],
    ] as const) {
      root.querySelector<HTMLElement>(`[data-run=${run}]`)?.click();
      await settled();
      expect(model.get("run")).toBe(run);
      expect(text(root.querySelector(".rs-badge"))).toContain(words);
      expect(root.querySelector(`[data-run=${run}]`)?.getAttribute("aria-pressed")).toBe("true");
      scales.push(ends());
    }
    expect(scales[0]).toEqual(scales[1]); // one scale for both runs
    expect(all(root, ".rs-ranking .rs-pair").length).toBe(0);
  });

  it("begins and ends by keys alone", async () => {
    const { root, model, settled } = await open();
    await settled();
    const opens = (): HTMLElement | null => root.querySelector(".rs-against-open");
    expect(opens()?.getAttribute("aria-label")).toBe("Compare with another run");
    opens()?.click();
    const field = root.querySelector<HTMLInputElement>('input[aria-label="Compare with"]');
    expect(all(root, ".rs-against-box [role=option]").map(text)).toEqual(["prompt 1of this cache"]);
    key(field, "ArrowDown");
    key(field, "Enter");
    await settled();
    expect(model.get("against")).toEqual({ cache: null, prompt: 1 });
    expect(opens()?.getAttribute("aria-label")).toBe("Compared with prompt 1");
    root.querySelector<HTMLElement>('[aria-label="End the comparison"]')?.click();
    await settled();
    expect(model.get("against")).toBe(null);
    expect(text(root.querySelector(".rs-badge"))).toContain("the model’s own logit difference");
    expect(all(root, ".rs-lens .rs-line").length).toBe(1);
  });

  it("compares a prompt with a prompt, if the mean was shown", async () => {
    const { root, model, settled } = await open({ prompt: null });
    await settled();
    root.querySelector<HTMLElement>(".rs-against-open")?.click();
    const field = root.querySelector<HTMLInputElement>('input[aria-label="Compare with"]');
    if (field) field.value = "1";
    field?.dispatchEvent(new Event("input"));
    key(field, "Enter");
    await settled();
    expect([model.get("prompt"), model.get("against")]).toEqual([0, { cache: null, prompt: 1 }]);
  });

  it("shows the reason in place of the picture if a comparison is not possible, and keeps the shown run", async () => {
    const kernel = recordedKernel();
    const message = "The two models have different shapes: the first has 3 layers, the second 5.";
    const { root, settled } = await open({ against: { cache: "large", prompt: null } }, (ask) =>
      ask.kind === "compare" ? { failure: { code: "compare-shapes", message } } : kernel(ask),
    );
    await settled();
    expect(text(root.querySelector(".rs-map-refusal"))).toBe(message);
    // The reason is shown once: the other charts show the first run.
    const troubles = all(root, ".rs-axes .rs-view-trouble").filter((node) => !node.hidden);
    expect(troubles.map(text)).toEqual([]);
    expect(all(root, ".rs-lens .rs-line").length).toBe(1);
    expect(root.dataset["state"]).toBe("ready");
    root.querySelector<HTMLElement>("[data-run=first]")?.click();
    await vi.waitFor(() => expect(root.querySelector<HTMLElement>(".rs-map-refusal")?.hidden).toBe(true));
    expect(text(root.querySelector(".rs-badge"))).toContain("the model’s own logit difference");
  });

  it("lists the caches of the kernel; one of another shape cannot be chosen", async () => {
    const kernel = recordedKernel();
    const caches = [cacheRow(["cache"]), cacheRow(["clean"]), cacheRow(["large"], { layers: 5 })];
    const { root, model, settled } = await open({}, (ask) =>
      ask.kind === "caches" ? { reply: { kind: "caches", kernel: "k", caches, notes: [] } } : kernel(ask),
    );
    await settled();
    root.querySelector<HTMLElement>(".rs-against-open")?.click();
    await settled();
    const options = all(root, ".rs-against-box [role=option]");
    expect(options.map((node) => text(node.querySelector(".rs-name")))).toEqual(["prompt 1", "clean", "large"]);
    options[2]?.click();
    expect(model.get("against")).toBe(null);
    options[1]?.click();
    expect(model.get("against")).toEqual({ cache: "clean", prompt: null });
  });

  it.each([
    ["other caches are listed", {}, null, "clean", "No prompt and no cache has this name."],
    ["listing fails", {}, "The kernel is busy.", "clean", "No prompt has this name."],
    ["no cache is listed", { prompts: 1 }, null, "", "There is no other prompt and no other cache."],
    ["listing fails, with one prompt", { prompts: 1 }, "The kernel is busy.", "", "This cache has no other prompt."],
  ])("says of an empty list only what is known: %s", async (_, facts, message, typed, words) => {
    const kernel = recordedKernel();
    const described = kernel({ kind: "describe" } as Ask) as { reply: CacheFacts };
    const { root, settled } = await open({}, (ask) => {
      if (ask.kind === "describe") return { reply: { ...described.reply, ...facts } };
      if (ask.kind !== "caches") return kernel(ask);
      if (message !== null) return { failure: { code: "busy", message } };
      return { reply: { kind: "caches", kernel: "k", caches: [cacheRow(["cache"])], notes: [] } };
    });
    await settled();
    root.querySelector<HTMLElement>(".rs-against-open")?.click();
    const field = root.querySelector<HTMLInputElement>('input[aria-label="Compare with"]');
    if (field) field.value = typed;
    field?.dispatchEvent(new Event("input"));
    const list = root.querySelector(".rs-against-box");
    await vi.waitFor(() => expect(text(list?.querySelector("p:not(.rs-broken)"))).toBe(words));
    expect(text(list?.querySelector(".rs-broken"))).toBe(message ?? "");
  });
});

describe("the scatter of two runs", () => {
  const { comparison } = recordedComparison();
  const scatter = scatterOf(comparison, 3, 2);

  it("has one scale for both axes, with zero and every head on it, the most different first", () => {
    expect(scatter.heads.length).toBe(6);
    const gaps = scatter.heads.map(({ value }) => Math.abs(value));
    expect(gaps).toEqual([...gaps].sort((a, b) => b - a));
    for (const head of scatter.heads)
      for (const value of [head.first, head.second, 0]) {
        expect(value).toBeGreaterThan(scatter.low);
        expect(value).toBeLessThan(scatter.high);
      }
    const same = spotOf(scatter, { first: 0.1, second: 0.1 });
    expect(same.x + (100 - same.y)).toBeCloseTo(2 * same.x, 9); // on the diagonal
    expect(spotOf(scatter, { first: scatter.high, second: scatter.low })).toEqual({ x: 100, y: 100 });
  });

  it.each([
    ["clear of both axes, it is to the right", { x: 10, y: 10 }, false, 0],
    ["it does not cross the vertical axis", { x: 29, y: 10 }, true, 0],
    ["it does not cross the right edge", { x: 90, y: 10 }, true, 0],
    ["on the horizontal axis, it goes below", { x: 50, y: 60 }, false, 8.5],
    ["just above the axis, it goes above", { x: 50, y: 59 }, false, -5],
  ])("places the name of a head: %s", (_, at, isLeft, down) => {
    expect(placeOfName("L24H4", at, { x: 33, y: 60 }, 3.5)).toEqual({ isLeft, down });
  });

  it("leaves out heads that one of the runs does not have", () => {
    const first = { ...comparison.first, rows: comparison.first.rows.map((value, i) => (i === 4 ? NaN : value)) };
    expect(scatterOf({ ...comparison, first }, 3, 2).heads.map(({ name }) => name)).not.toContain("L2H0");
  });

  it("finds the head under the pointer, and those in a frame", () => {
    const [head] = scatter.heads;
    if (!head) throw new Error("no head");
    const { x, y } = spotOf(scatter, head);
    expect(nearestTo(scatter, { x: x + 0.5, y: y - 0.5 }, 4)?.name).toBe(head.name);
    expect(nearestTo(scatter, { x: x + 500, y }, 4)).toBe(null);
    expect(within(scatter, { x: x + 1, y: y + 1 }, { x: x - 1, y: y - 1 }).map(({ name }) => name)).toContain(
      head.name,
    );
    expect(within(scatter, { x: 0, y: 0 }, { x: 100, y: 100 }).length).toBe(6);
  });

  const opened = async () => {
    const panel = await open({ against: { cache: null, prompt: 1 }, tab: "runs" });
    await panel.settled();
    const field = panel.root.querySelector<HTMLElement>(".rs-scatter-field");
    if (!field) throw new Error("no plot");
    field.getBoundingClientRect = () => new DOMRect(0, 0, 100, 100);
    const at = (type: string, spot: { x: number; y: number }): boolean =>
      field.dispatchEvent(new PointerEvent(type, { clientX: spot.x, clientY: spot.y, button: 0, bubbles: true }));
    return { ...panel, field, at };
  };

  it("is linked: pointing shows the head everywhere, a click pins it, a frame pins several", async () => {
    const { root, model, at } = await opened();
    const [head] = scatter.heads;
    if (!head) throw new Error("no head");
    const spot = spotOf(scatter, head);
    at("pointermove", spot);
    expect(root.querySelector(`[data-head="${head.name}"][role=gridcell]`)?.className).toContain("rs-hover");
    expect(text(root.querySelector(".rs-scatter-tip"))).toMatch(
      new RegExp(`^${head.name} A \\S+, B \\S+, B − A \\S+$`),
    );
    at("pointerdown", spot);
    at("pointerup", spot);
    expect(model.get("heads")).toEqual([head.name]);
    at("pointerdown", { x: 0, y: 0 });
    at("pointermove", { x: 100, y: 100 });
    expect(root.querySelector<HTMLElement>(".rs-scatter-brush")?.hidden).toBe(false);
    at("pointerup", { x: 100, y: 100 });
    expect([...(model.get("heads") ?? [])].sort()).toEqual(scatter.heads.map(({ name }) => name).sort());
    expect(text(root.querySelector(".rs-sentence"))).toContain("Pinned 6 heads in the frame");
  });

  it("is read with the arrow keys, from the head that differs most; Enter pins", async () => {
    const { model, field, root } = await opened();
    key(field, "ArrowRight");
    key(field, "ArrowRight");
    key(field, "Enter");
    expect(model.get("heads")).toEqual([scatter.heads[1]?.name]);
    expect(field.getAttribute("aria-label")).toContain(scatter.heads[1]?.name ?? "-");
    expect(text(root.querySelector(".rs-runs .rs-caption"))).toContain(" is due to the norm or the target");
  });

  it("is there only while two runs are compared", async () => {
    const { root, model, settled } = await opened();
    expect(root.querySelector('[data-tab="runs"]')).not.toBe(null);
    root.querySelector<HTMLElement>('[aria-label="End the comparison"]')?.click();
    await settled();
    expect(root.querySelector('[data-tab="runs"]')).toBe(null);
    await vi.waitFor(() => expect(model.get("tab")).toBe("attention"));
  });

  it("gives way to the tab that Python chooses right after the end of the comparison", async () => {
    const { root, model, settled } = await opened();
    model.set("against", null);
    model.set("tab", "positions");
    await settled();
    await new Promise((done) => setTimeout(done, 200)); // longer than a missing tab stays chosen
    expect(model.get("tab")).toBe("positions");
    expect(text(root.querySelector('[role="tab"][aria-selected="true"]'))).toBe("Positions");
  });

  it("is exported as points and as a table", () => {
    const picture = { picture: "runs", ...scatter, pinned: ["L1H1"] } as const;
    const setting = settingOf(storeOf(["a"], [], {}));
    const table = tableOf({ ...picture, pinned: ["L1H1"] }, setting);
    expect(table.columns).toEqual(["head", "first", "second", "difference"]);
    const [head] = scatter.heads;
    expect([...table.rows][0]).toEqual([head?.name, head?.first, head?.second, head?.value]);
    const compared = { first: "cache", second: "clean", run: "first" } as const;
    const svg = figure({ ...picture, pinned: ["L1H1"] }, { ...setting, compared });
    expect(svg.match(/<circle /g)?.length).toBe(6);
    for (const words of ["A: cache", "B: clean", "L1H1"]) expect(svg).toContain(words);
  });
});

describe("attention in two runs", () => {
  const maps = () => {
    const ask = { kind: "compare-attention", layer: 1, head: 1, prompt: 0, against: { prompt: 1 } } as Ask;
    const outcome = recordedKernel()(ask);
    if (!("reply" in outcome) || outcome.reply.kind !== "compare-attention") throw new Error("not recorded");
    const buffers = (outcome.buffers ?? []).map((buffer) => new DataView(buffer));
    return runMapsOf({ reply: outcome.reply, buffers });
  };

  it("has rows that sum to one in each run, and to zero in the difference", () => {
    const { size, planes, head } = maps();
    expect([head, size]).toEqual(["L1H1", 6]);
    for (const [at, sum] of [1, 1, 0].entries())
      for (let row = 0; row < size; row += 1) {
        const values = Array.from(planes[at]?.values.slice(row * size, (row + 1) * size) ?? []);
        expect(values.reduce((total, value) => total + value, 0)).toBeCloseTo(sum, 5);
      }
  });

  it("has a sentence about a cell with the values of both runs", () => {
    const store = storeOf(["a", "b", "c", "d", "e", "f"]);
    const found = maps();
    const at = (plane: number): number => found.planes[plane]?.values[5 * 6 + 2] ?? NaN;
    const change = at(1) - at(0);
    expect(flat(cellSentence(store, found, { row: 5, column: 2 }))).toBe(
      `L1H1: f reads c ${at(0).toFixed(2)} in A, ${at(1).toFixed(2)} in B: ` +
        `*${change < 0 ? "−" : "+"}${Math.abs(change).toFixed(2)}*`,
    );
  });

  it.each([
    [NaN, NaN, "L1H1: no prompt has tokens at both a and a, in A or in B"],
    [NaN, 0.5, "L1H1: a reads a 0.50 in B; no prompt of A has both tokens"],
    [0.25, NaN, "L1H1: a reads a 0.25 in A; no prompt of B has both tokens"],
  ])("says of a cell of padding (A %f, B %f) that it has no number", (a, b, words) => {
    const plane = (value: number) => ({ ...everything(1), step: 1, values: Float32Array.of(value) });
    const maps = { head: "L1H1", size: 1, notes: [], pairs: null };
    const planes: RunMaps["planes"] = [plane(a), plane(b), plane(b - a)];
    expect(flat(cellSentence(storeOf(["a"]), { ...maps, planes }, { row: 0, column: 0 }))).toBe(words);
  });

  it("shows the pinned heads, can be read with keys, and is linked to the strip", async () => {
    const { root, settled } = await open({ against: { cache: null, prompt: 1 }, tab: "runs", heads: ["L1H1", "L0H0"] });
    await settled();
    const choice = all(root, '[aria-label="What is compared"] button');
    choice[1]?.click();
    await settled();
    const rows = all(root, ".rs-run-head").filter((row) => !row.hidden);
    expect(rows.map((row) => text(row.querySelector("h4")))).toEqual(["L1H1", "L0H0"]);
    expect(text(all(root, ".rs-runs .rs-caption")[1])).toMatch(/Colours of B − A end at ±0\.\d\d/);
    const field = rows[0]?.querySelector<HTMLElement>(".rs-run-row");
    key(field, "ArrowRight");
    key(field, "ArrowRight");
    key(field, "ArrowRight");
    expect(text(root.querySelector(".rs-sentence"))).toMatch(/^L1H1: .* in A, .* in B: [+−]?0\.\d\d$/);
    expect(root.querySelector('.rs-tokens [data-position="2"]')?.className).toContain("rs-lit");
    expect(all(root, ".rs-run-mark").filter((mark) => !mark.hidden).length).toBe(3);
    expect(root.querySelector('[data-head="L1H1"][role=gridcell]')?.className).toContain("rs-hover");
  });

  it("shows in place of the head why there is no picture", async () => {
    const kernel = recordedKernel();
    const message = "The prompts of the two runs differ in their length.";
    const { root, settled } = await open(
      { against: { cache: null, prompt: 1 }, tab: "runs", heads: ["L1H1"] },
      (ask) => (ask.kind === "compare-attention" ? { failure: { code: "align", message } } : kernel(ask)),
    );
    await settled();
    all(root, '[aria-label="What is compared"] button')[1]?.click();
    await settled();
    expect(text(root.querySelector(".rs-run-head .rs-view-trouble"))).toBe(message);
    expect(root.dataset["state"]).toBe("ready");
  });
});

describe("a stored picture of a comparison", () => {
  const taken = async () => {
    const panel = await open({ against: { cache: null, prompt: 1 }, heads: ["L1H1"], tab: "runs" });
    await panel.settled();
    all(panel.root, '[aria-label="What is compared"] button')[1]?.click();
    await panel.settled();
    let picture: Snapshot | null = null;
    const put = (snapshot: Snapshot): void => void (picture = snapshot);
    panel.el.dispatchEvent(new CustomEvent<SnapshotRequest>(SNAPSHOT_EVENT, { detail: { put } }));
    if (!picture) throw new Error("no picture");
    return JSON.parse(JSON.stringify(picture)) as Snapshot;
  };
  const entryOf = (picture: Snapshot, kind: string) => picture.entries.find(({ ask }) => ask.kind === kind);

  it("contains its replies, and is accepted", async () => {
    const picture = await taken();
    const kinds = picture.entries.map(({ ask }) => ask.kind);
    expect(kinds.filter((kind) => kind === "compare").length).toBe(3);
    expect(kinds).toContain("compare-attention");
    expect(checkSnapshot(picture).trouble).toBe(null);
  });

  it.each([
    ["compare", "a buffer that is too short", (entry: Entry) => void entry.buffers?.splice(2, 1, "AAAA")],
    ["compare", "a buffer too few", (entry: Entry) => void entry.buffers?.pop()],
    ["compare-attention", "a map too few", (entry: Entry) => void entry.buffers?.pop()],
    ["compare-attention", "a map of another size", (entry: Entry) => void entry.buffers?.splice(0, 1, "AAAA")],
  ])("is refused if its %s has %s", async (kind, _, spoil) => {
    const picture = await taken();
    const entry = entryOf(picture, kind);
    if (!entry) throw new Error("no entry");
    spoil(entry);
    expect(checkSnapshot(picture).snapshot).toBe(null);
  });
});

describe("what is exported of a comparison", () => {
  const store = storeOf(["a", "b", "c"], [0.5, -1, 2, 0]);
  store.against.value = { cache: "clean", prompt: null };
  store.cacheName.value = "corrupted";
  const run = (rows: number[]) => attributionOf(rows, { measured: 0, unexplained: 0, worst: 0 });
  store.runs.heads.value = {
    by: "head",
    first: run([0.5, -1, 2, 0]),
    second: run([1, -1, -1, 0]),
    difference: run([0.5, 0, -3, 0]),
    written: Float32Array.of(0.5, 0, -3, 0),
    read: 0,
  };
  const picture = (name: string) => picturesOf(store).find((one) => one.picture === name);

  it.each([
    ["difference", [0.5, 0, -3, 0], "B − A of what each adds to the logit difference", 3],
    ["second", [1, -1, -1, 0], "what each adds to the logit difference in B", 2],
    ["first", [0.5, -1, 2, 0], "what each adds to the logit difference in A", 2],
  ] as const)("the head map of the %s", (shown, values, words, limit) => {
    store.run.value = shown;
    const heads = picture("heads");
    if (heads?.picture !== "heads") throw new Error("no head map");
    expect([...heads.values]).toEqual(values);
    expect(heads.limit).toBe(limit);
    const table = tableOf(heads, settingOf(store));
    expect(table.columns).toEqual(["layer", "head", "value", "first", "second"]);
    expect([...table.rows][2]).toEqual([1, 0, values[2], 2, -1]);
    const figure = headsFigure(heads, settingOf(store));
    for (const part of [words, "A: corrupted", "B: clean"]) expect(figure).toContain(part);
  });

  it.each([
    [["training-mode"], ["training-mode"], "the model is in training mode"],
    [[], ["weights-changed"], "the weights were changed (B: clean)"],
    [["weights-changed"], [], "the weights were changed (A: corrupted)"],
  ] as const)("the warnings of A %j and of B %j, whichever run is shown", (ofA, ofB, words) => {
    const { heads } = store.runs;
    const before = heads.value;
    if (!before) throw new Error("no comparison");
    const warned = (run: Attribution, warnings: readonly WarningKind[]): Attribution => ({
      ...run,
      reply: { ...run.reply, warnings: [...warnings] },
    });
    heads.value = { ...before, first: warned(before.first, ofA), second: warned(before.second, ofB) };
    for (const run of ["first", "second", "difference"] as const) {
      store.run.value = run;
      expect(settingOf(store).source).toEqual(["m", `warning: ${words}`]);
    }
    heads.value = before;
  });

  it("nothing of the comparison after it was refused: the rows of A are not exported as B − A", () => {
    const { heads } = store.runs;
    const before = heads.value;
    [store.run.value, heads.value] = ["difference", null];
    store.problems.value = new Map([["compared heads", "There is no activation cache `clean`."]]);
    expect([picture("heads"), picture("ranking")]).toEqual([undefined, undefined]);
    store.run.value = "first";
    expect(picture("heads")?.picture).toBe("heads");
    store.problems.value = new Map();
    heads.value = before;
  });

  it("the ranking, by the difference", () => {
    store.run.value = "difference";
    const ranking = picture("ranking");
    if (ranking?.picture !== "ranking") throw new Error("no ranking");
    const table = tableOf(ranking, settingOf(store));
    expect([...table.rows]).toEqual([
      ["L1H0", -3, 2, -1],
      ["L0H0", 0.5, 0.5, 1],
    ]);
  });
});

describe("after a failure, or while a reply is awaited", () => {
  const cells = (root: HTMLElement): string[] =>
    all(root, '[aria-label="Head map"] [role=gridcell]').map((cell) => cell.getAttribute("aria-label") ?? "");
  const point = (root: HTMLElement, head: string): boolean | undefined =>
    root
      .querySelector(`[role=gridcell][data-head="${head}"]`)
      ?.dispatchEvent(new Event("pointerover", { bubbles: true }));
  const message = "There is no activation cache `clean` in the notebook.";
  const honest = recordedKernel();
  /** The kernel without the cache that is compared with, or without the cache that is shown. */
  const lacking =
    (codes: Partial<Record<string, string>>): Kernel =>
    (ask) => {
      const code = codes[ask.kind];
      return code
        ? { failure: { code, message } }
        : honest(ask.kind === "compare" ? { ...ask, against: { prompt: 1 } } : ask);
    };

  it("no tooltip, sentence, badge or ranking has a number of the earlier comparison", async () => {
    let codes = {};
    const { root, model, settled } = await open({ against: { cache: "clean", prompt: null }, prompt: null }, (ask) =>
      lacking(codes)(ask.kind === "compare" ? { ...ask, prompt: 0 } : ask),
    );
    await settled();
    point(root, "L2H1");
    expect(text(root.querySelector(".rs-sentence"))).toMatch(/ in A, [+−][\d.]+ in B/);
    expect(text(root.querySelector(".rs-map-tip"))).toMatch(/^L2H1 [+−][\d.]+ \(A [+−][\d.]+, B [+−][\d.]+\)$/);
    codes = { compare: "against" };
    model.set("prompt", 0);
    await vi.waitFor(() =>
      expect(text(root.querySelector(".rs-map-refusal"))).toContain("There is no activation cache"),
    );
    await settled();
    point(root, "L2H0");
    point(root, "L2H1");
    const own = text(root.querySelector(".rs-card-title .rs-number")); // of the shown run in this prompt
    expect(root.querySelector<HTMLElement>(".rs-map-tip")?.hidden).toBe(true);
    expect(text(root.querySelector(".rs-sentence"))).toMatch(new RegExp(`^L2H1 adds ${own.replace("+", "\\+")}(;|$)`));
    expect(text(root.querySelector(".rs-sentence"))).not.toMatch(/ in [AB]/);
    expect(cells(root)).toEqual(cells(root).map((words) => `${words.split(" ")[0]} not known`));
    expect(all(root, '[aria-label="Head map"] [role=gridcell]').map((cell) => cell.style.backgroundColor)).toEqual(
      cells(root).map(() => ""),
    );
    expect(text(root.querySelector(".rs-bar-scale"))).toBe("");
    expect(text(root.querySelector(".rs-badge"))).toBe("the rows cannot be added up");
    expect(all(root, ".rs-ranking [data-head]")).toEqual([]);
    expect(all(root, ".rs-ledger td")).toEqual([]);
    expect(all(root, ".rs-lens .rs-line").length).toBe(1); // of the shown run
    codes = {};
    model.set("prompt", null);
    await vi.waitFor(() => expect(cells(root)[0]).toMatch(/\(A .*, B .*\)$/)); // it is compared again
  });

  it("no number of the earlier selection is shown while a reply is late, and then those of this one", async () => {
    let delay = 0;
    const everywhere: Kernel = (ask) => honest("position" in ask ? { ...ask, position: "last" } : ask);
    const { root, model, settled } = await open({ against: { cache: null, prompt: 1 } }, everywhere, () => delay);
    await settled();
    const badge = (): string => text(root.querySelector(".rs-badge"));
    expect([badge().includes("✓"), root.dataset["late"]]).toEqual([true, ""]);
    const before = cells(root);
    delay = 600;
    model.set("position", 3);
    expect(cells(root)).toEqual(before.map((words) => `${words.split(" ")[0]} not known yet`));
    expect(badge()).toContain("✓"); // nothing flickers if the reply comes soon
    await vi.waitFor(() => expect(root.dataset["late"]).toContain("compared-heads"));
    expect(badge()).toBe("adding up the rows …");
    await vi.waitFor(() => expect(root.dataset["late"]).toBe(""), 4000);
    expect(badge()).toContain("✓");
    expect(cells(root)[0]).toMatch(/\(A .*, B .*\)$/);
  });

  it("after the kernel was lost, a picture stays only in the selection that it belongs to", async () => {
    let codes = {};
    const { root, model, settled } = await open({}, (ask) => lacking(codes)(ask));
    await settled();
    point(root, "L2H1");
    await settled();
    const [before, sentence] = [cells(root), text(root.querySelector(".rs-sentence"))];
    expect(sentence).toContain("reads");
    codes = { attribute: "lost", attention: "lost", tokens: "lost" };
    model.set("prompt", 1);
    await vi.waitFor(() => expect(cells(root)).toEqual(before.map((words) => `${words.split(" ")[0]} not known`)));
    await settled();
    expect(text(root.querySelector(".rs-badge"))).toBe("adding up the rows …");
    expect(text(root.querySelector(".rs-sentence"))).toBe("L2H1");
    expect(all(root, ".rs-tokens [data-position]")).toEqual([]);
    expect(all(root, ".rs-lens .rs-line").map((line) => line.getAttribute("d"))).toEqual([""]);
    model.set("prompt", 0);
    await vi.waitFor(() => expect(cells(root)).toEqual(before));
    await settled();
    expect(text(root.querySelector(".rs-sentence"))).toContain(sentence.split(";")[0]);
  });
});

describe("a cell that makes the caches again", () => {
  const RUNS = { against: { cache: "clean", prompt: null }, cache_name: "corrupted" };
  const recordedAgainst: Kernel = (ask) => {
    const kernel = recordedKernel();
    return kernel(ask.kind === "compare" ? { ...ask, against: { prompt: 1 } } : ask);
  };
  const compares = (model: { asked: { ask: Ask }[] }): number =>
    model.asked.filter(({ ask }) => ask.kind === "compare" || ask.kind === "pairing").length;

  it("the panel says that it shows the earlier cache, and its values are named so", async () => {
    const { root, model, settled } = await open({ cache_name: "corrupted" });
    await settled();
    const asked = model.asked.length;
    model.set("standing", { rebound: true, against: null });
    const said = root.querySelector<HTMLElement>(".rs-standing");
    expect(text(said)).toContain("now holds another cache. This panel shows the earlier one.");
    expect(text(root.querySelector(".rs-badge"))).toMatch(/^✓ [+−][\d.]+ · of the earlier corrupted$/);
    expect(root.querySelector(".rs-badge-text")?.getAttribute("data-short")).toMatch(/^✓ adds up: .* \(earlier\)$/);
    expect(model.asked.length).toBe(asked); // the earlier cache has not changed
    model.set("standing", { rebound: false, against: null });
    expect(root.querySelector(".rs-standing")).toBeNull();
    expect(text(root.querySelector(".rs-badge"))).not.toContain("earlier");
  });

  it("everything is requested again after a cell that changed the cache or the weights", async () => {
    const standing = { rebound: false, against: null, changes: 0 };
    const { model, settled } = await open({ standing });
    await settled();
    const heads = (): number => model.asked.filter(({ ask }) => ask.kind === "attribute" && ask.by === "head").length;
    const before = heads();
    expect(before).toBeGreaterThan(0);
    model.set("standing", { ...standing });
    expect(heads()).toBe(before);
    model.set("standing", { ...standing, changes: 1 });
    await settled();
    expect(heads()).toBe(2 * before);
  });

  it("everything of the comparison is read from the new cache at once, and the names of the runs tell", async () => {
    const standing = { rebound: false, against: ["clean", "c1 0"] as [string, string] };
    const { root, model, settled } = await open({ ...RUNS, standing }, recordedAgainst);
    await settled();
    const before = compares(model);
    model.set("standing", { ...standing });
    expect(compares(model)).toBe(before);
    expect(root.querySelector(".rs-badge")?.textContent).not.toContain("note");
    model.set("standing", { rebound: true, against: ["clean", "c2 0"] });
    expect(compares(model)).toBe(2 * before);
    await settled();
    expect(all(root, ".rs-rank-choice .rs-run-key b").map(text)).toEqual(["earlier corrupted", "clean"]);
    root.querySelector<HTMLElement>(".rs-badge button")?.click();
    expect(all(root, ".rs-reckoning li").map(text)).toContain(
      "clean (B) now holds another cache than before: all values of B are from the new one.",
    );
  });

  it("another cache that is chosen is no new one; a changed one is read again without this note", async () => {
    const { root, model, settled } = await open(
      { ...RUNS, standing: { rebound: false, against: ["clean", "c1 0"] } },
      recordedAgainst,
    );
    await settled();
    model.set("against", { cache: "other", prompt: null });
    await settled();
    const before = compares(model);
    model.set("standing", { rebound: false, against: ["other", "c2 0"] });
    expect(compares(model)).toBe(before);
    model.set("standing", { rebound: false, against: ["other", "c2 1"] });
    expect(compares(model)).toBeGreaterThan(before);
    await settled();
    root.querySelector<HTMLElement>(".rs-badge button")?.click();
    expect(text(root.querySelector(".rs-reckoning"))).not.toContain("(B)");
  });
});

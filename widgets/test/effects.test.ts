// Effects for which the model is run: the requests and their times, and how cells, ranking and exports show the
// effects. The model is never run unless the user asks for it. The kernel is a fake; tests/browser/test_effects.py has
// a real one.
import { describe, expect, it, vi } from "vitest";
import { measuredKernel } from "../dev/measured-kernel";
import { recordedKernel, SHAPE } from "../dev/recorded-kernel";
import { transportOver } from "../src/entry/anywidget";
import { settingOf } from "../src/export/shown-pictures";
import { headsFigure } from "../src/export/svg/heads";
import { SNAPSHOT_EVENT, type SnapshotRequest } from "../src/snapshot/recorder";
import type { Snapshot } from "../src/snapshot/snapshot";
import { checkSnapshot } from "../src/snapshot/snapshot-check";
import { againstKey, runNames } from "../src/state/comparison";
import { isEstimated, valuesOf } from "../src/state/effects";
import { read, SELECTABLE } from "../src/state/selectable";
import type { Store } from "../src/state/store";
import { takeOut } from "../src/state/take-out";
import type { EffectsReply } from "../src/wire/protocol.gen";
import { isTurn, isTurnKernel, takeTurn, turnCode } from "../src/wire/turns";
import { attributionOf, storeOf } from "./made";
import { all, key, open, text } from "./open";
import { picturesOf, tableOf } from "./pictures";

const COUNT = SHAPE.layers * SHAPE.heads;
const cell = (root: HTMLElement, head: string): string =>
  root.querySelector(`[role="gridcell"][data-head="${head}"]`)?.getAttribute("aria-label") ?? "";
const button = (root: HTMLElement, words: string): HTMLElement | undefined =>
  all(root, "button").find((node) => text(node) === words);
const position = (root: HTMLElement, at: number): void =>
  root.querySelector<HTMLElement>(`.rs-tokens [data-position="${at}"]`)?.click();
/** The words on the runs, without those on what the values are. */
const state = (root: HTMLElement): string =>
  [...(root.querySelector(".rs-heads .rs-effects-state")?.children ?? [])]
    .filter((node) => !node.classList.contains("rs-effects-values"))
    .map(text)
    .join(" ")
    .trim();

function opened(traits: Parameters<typeof open>[0] = {}, options: Partial<Parameters<typeof measuredKernel>[1]> = {}) {
  const kernel = measuredKernel(recordedKernel(), { ...SHAPE, ...options });
  return open(traits, kernel).then((panel) => ({ ...panel, kernel }));
}
const asked = (panel: Awaited<ReturnType<typeof opened>>, kind: string) =>
  panel.model.asked.filter(({ ask }) => ask.kind === kind).map(({ ask }) => ask);

describe("an effect for which the model is run", () => {
  it("appears while it is measured, and shows what is measured and what is estimated", async () => {
    const panel = await opened({ effect: "direct" }, { idle: 1 });
    await panel.settled();
    const direct = cell(panel.root, "L1H0");
    expect(asked(panel, "effects")).toEqual([]);
    button(panel.root, "total")?.click();
    expect(cell(panel.root, "L1H0")).toBe("L1H0 not known yet");
    await vi.waitFor(() => expect(state(panel.root)).toMatch(/^measuring 2 of 6/));
    const hatched = all(panel.root, ".rs-cell.rs-estimate").map(({ dataset }) => dataset["head"] ?? "");
    expect(hatched).toHaveLength(COUNT - 2);
    for (const head of hatched) expect(cell(panel.root, head)).toMatch(/^L\dH\d adds: about [+−]?[\d.]+ \(estimate\)$/);
    await vi.waitFor(() => expect(state(panel.root)).toBe("all 6 measured"));
    expect(all(panel.root, ".rs-cell.rs-estimate")).toEqual([]);
    expect(cell(panel.root, "L1H0")).toMatch(
      /^L1H0 adds: total [+−][\d.]+ \(direct [+−][\d.]+, indirect [+−][\d.]+\)$/,
    );
    expect(text(panel.root.querySelector(".rs-replayed"))).toBe("✓ an unchanged run gives +4.724, as in the cache");
    const runs = panel.kernel.runs();
    button(panel.root, "indirect")?.click();
    await vi.waitFor(() => expect(cell(panel.root, "L1H0")).toContain("L1H0 adds: indirect"));
    button(panel.root, "direct")?.click();
    expect(cell(panel.root, "L1H0")).toBe(direct);
    expect(panel.kernel.runs()).toBe(runs);
  });

  it("is stopped at once: the last request measures nothing, and no request follows", async () => {
    const panel = await opened({}, { batch: 1 });
    await panel.settled();
    button(panel.root, "total")?.click();
    await vi.waitFor(() => expect(state(panel.root)).toMatch(/^measuring 1 of 6/));
    button(panel.root, "stop")?.click();
    expect(state(panel.root)).toMatch(/^\d of 6 measured$/);
    await vi.waitFor(() => expect(asked(panel, "effects").at(-1)).toMatchObject({ measure: false }));
    const [count, runs] = [asked(panel, "effects").length, panel.kernel.runs()];
    await new Promise((settle) => setTimeout(settle, 150));
    expect([asked(panel, "effects").length, panel.kernel.runs()]).toEqual([count, runs]);
    button(panel.root, "go on")?.click();
    await vi.waitFor(() => expect(state(panel.root)).toBe("all 6 measured"));
  });

  it("ends when the selection changes; for the next selection, only known values are requested", async () => {
    const panel = await opened({}, { batch: 1 });
    await panel.settled();
    button(panel.root, "total")?.click();
    await vi.waitFor(() => expect(state(panel.root)).toMatch(/^measuring 1 of 6/));
    position(panel.root, 2);
    await vi.waitFor(() => expect(state(panel.root)).toMatch(/^not measured$/));
    const [before, after] = asked(panel, "effects").slice(-2);
    expect([before, after]).toMatchObject([
      { measure: false, position: "last" },
      { measure: false, position: 2 },
    ]);
    await vi.waitFor(() => expect(cell(panel.root, "L1H0")).toBe("L1H0 not measured"));
  });

  it("resumes when the user comes back to a selection that was being measured", async () => {
    const panel = await opened({}, { batch: 1 });
    await panel.settled();
    button(panel.root, "total")?.click();
    await vi.waitFor(() => expect(state(panel.root)).toMatch(/^measuring 1 of 6/));
    position(panel.root, 2);
    await vi.waitFor(() => expect(state(panel.root)).toMatch(/^not measured$/));
    position(panel.root, 5);
    await vi.waitFor(() => expect(state(panel.root)).toBe("all 6 measured"));
  });

  it("does not resume what the user stopped", async () => {
    const panel = await opened({}, { batch: 1 });
    await panel.settled();
    button(panel.root, "total")?.click();
    await vi.waitFor(() => expect(state(panel.root)).toMatch(/^measuring 1 of 6/));
    button(panel.root, "stop")?.click();
    await vi.waitFor(() => expect(state(panel.root)).toMatch(/^[1-5] of 6 measured$/));
    const runs = panel.kernel.runs();
    position(panel.root, 2);
    await vi.waitFor(() => expect(state(panel.root)).toMatch(/^not measured$/));
    position(panel.root, 5);
    await vi.waitFor(() => expect(state(panel.root)).toMatch(/^[1-5] of 6 measured$/));
    await new Promise((settle) => setTimeout(settle, 100));
    expect(panel.kernel.runs()).toBe(runs);
  });

  it("goes on for another prompt, because each run is of all prompts", async () => {
    const panel = await opened({}, { batch: 1 });
    await panel.settled();
    button(panel.root, "total")?.click();
    await vi.waitFor(() => expect(state(panel.root)).toMatch(/^measuring 1 of 6/));
    panel.root.querySelector<HTMLElement>('[aria-label="Next prompt"]')?.click();
    await vi.waitFor(() => expect(state(panel.root)).toBe("all 6 measured"));
    expect(asked(panel, "effects").at(-1)).toMatchObject({ prompt: 1 });
    expect(panel.kernel.runs()).toBe(COUNT);
  });

  it("pauses while nobody can see it, and resumes when it is seen again", async () => {
    const panel = await opened({}, { batch: 1 });
    await panel.settled();
    const root = panel.root.closest<HTMLElement>(".residscope") ?? panel.root;
    let isVisible = true;
    root.checkVisibility = () => isVisible;
    button(panel.root, "total")?.click();
    await vi.waitFor(() => expect(state(panel.root)).toMatch(/^measuring 1 of 6/));
    isVisible = false;
    await vi.waitFor(() => expect(state(panel.root)).toMatch(/^[1-5] of 6 measured$/));
    const runs = panel.kernel.runs();
    await new Promise((settle) => setTimeout(settle, 700));
    expect(panel.kernel.runs()).toBe(runs);
    isVisible = true;
    await vi.waitFor(() => expect(state(panel.root)).toBe("all 6 measured"), 3000);
  });

  it("runs nothing when a selection is restored, or Python chooses it", async () => {
    const panel = await opened({ effect: "total" });
    await panel.settled();
    await vi.waitFor(() => expect(state(panel.root)).toMatch(/^not measured$/));
    expect(panel.kernel.runs()).toBe(0);
    expect(asked(panel, "effects").every((ask) => "measure" in ask && ask.measure === false)).toBe(true);
  });

  it("is refused in the kernel’s words, and one click shows the direct effects again", async () => {
    const panel = await opened({}, { refusal: "The run cannot be repeated: the weights were changed." });
    await panel.settled();
    button(panel.root, "total")?.click();
    const refusal = (): string => text(panel.root.querySelector(".rs-map-refusal"));
    await vi.waitFor(() => expect(refusal()).toContain("The run cannot be repeated: the weights were changed."));
    button(panel.root, "show direct effects")?.click();
    expect(refusal()).toBe("");
    expect(panel.root.dataset["state"]).toBe("ready");
    expect(panel.model.get("effect")).toBe("direct");
  });

  it("needs no measured values for the estimate alone", async () => {
    const panel = await opened({}, { batch: 1 });
    await panel.settled();
    button(panel.root, "estimate")?.click();
    await vi.waitFor(() => expect(state(panel.root)).toBe("estimated by one gradient"));
    expect(asked(panel, "effects").at(-1)).toMatchObject({ measure: false });
    expect(all(panel.root, ".rs-cell.rs-estimate")).toHaveLength(COUNT);
  });

  it("is kept in a stored picture as stopped, because a picture cannot run the model", async () => {
    const panel = await opened({}, { batch: 1 });
    await panel.settled();
    button(panel.root, "total")?.click();
    await vi.waitFor(() => expect(state(panel.root)).toMatch(/^measuring 2 of 6/));
    let snapshot: Snapshot | null = null;
    const detail: SnapshotRequest = { put: (made) => (snapshot = made) };
    panel.el.dispatchEvent(new CustomEvent(SNAPSHOT_EVENT, { detail }));
    const { snapshot: made, trouble } = checkSnapshot(JSON.parse(JSON.stringify(snapshot)));
    expect(trouble).toBeNull();
    const entry = made?.entries.find(({ ask }) => ask.kind === "effects");
    expect(entry?.ask).not.toHaveProperty("measure");
    expect(entry?.reply).toMatchObject({ state: "stopped", turn: null, done: expect.any(Number) });
  });
});

describe("the effects of the stream", () => {
  async function openedStream(traits: Parameters<typeof open>[0] = {}) {
    const panel = await opened({ effect: "total", tab: "runs", ...traits });
    await panel.settled();
    button(panel.root, "Stream")?.click();
    return panel;
  }

  it.each([
    ["one target", {}],
    ["each position’s own target", { wire_target: { contrasts: [], next_token: { versus: null } } }],
  ])("have the token of each position above its column, as in the sentence: %s", async (_, traits) => {
    const { root } = await openedStream(traits);
    const tokens = all(root, ".rs-tokens [data-position]").map((node) => text(node.querySelector(".rs-text") ?? node));
    const labels = (): HTMLElement[] => all(root, ".rs-stream .rs-sheet-tokens span");
    await vi.waitFor(() => expect(labels()).toHaveLength(SHAPE.positions));
    expect(labels().map(text)).toEqual(tokens);
    const field = root.querySelector(".rs-stream .rs-sheet-field");
    for (const to of ["Home", "End"]) {
      key(field, "ArrowLeft");
      key(field, to);
      const lit = labels().filter((label) => label.classList.contains("rs-lit"));
      expect(field?.getAttribute("aria-label")).toContain(`at ${lit.map(text).join()}:`);
    }
  });

  it("are not in a stored picture, because its views do not show them", async () => {
    const panel = await openedStream();
    const ask = { kind: "effects", of: "stream" };
    await vi.waitFor(() => expect(asked(panel, "effects").at(-1)).toMatchObject(ask));
    const state = (): string => text(panel.root.querySelector(".rs-stream-state"));
    await vi.waitFor(() => expect(state()).toContain("all 18 measured"), 10_000);
    let snapshot: Snapshot | null = null;
    const detail: SnapshotRequest = { put: (made) => (snapshot = made) };
    panel.el.dispatchEvent(new CustomEvent(SNAPSHOT_EVENT, { detail }));
    const kept = (snapshot as Snapshot | null)?.entries.map((entry) => entry.ask);
    expect(kept).toContainEqual(expect.objectContaining({ kind: "effects", of: "heads" }));
    expect(kept).not.toContainEqual(expect.objectContaining(ask));
  });
});

describe("a run without some heads", () => {
  it("is made when the user asks, then compared; putting back the last head ends it", async () => {
    const panel = await opened({ heads: ["L1H1", "L2H0"] });
    await panel.settled();
    key(panel.root.querySelector('[role="gridcell"][data-head="L1H1"]'), "t");
    await vi.waitFor(() =>
      expect(text(panel.root.querySelector(".rs-badge"))).toContain("an unchanged run gives +4.724"),
    );
    expect(panel.model.get("against")).toMatchObject({ without: ["L1H1", "L2H0"], replaced_by: "zero" });
    expect(all(panel.root, ".rs-out").map((node) => text(node))).toEqual(["L1H1×", "L2H0×"]);
    panel.root.querySelector<HTMLElement>('[aria-label="Put L1H1 back"]')?.click();
    await vi.waitFor(() => expect(panel.kernel.runs()).toBe(2));
    panel.root.querySelector<HTMLElement>('[aria-label="Put L2H0 back"]')?.click();
    expect(panel.model.get("against")).toBeNull();
    await vi.waitFor(() => expect(asked(panel, "without").at(-1)).toEqual({ kind: "without", against: {} }));
  });

  it("is not made for a restored selection, until the user asks for it", async () => {
    const panel = await opened({ against: { without: ["L1H1"] } });
    await panel.settled();
    await vi.waitFor(() => expect(button(panel.root, "run again")).toBeDefined());
    expect([panel.kernel.runs(), panel.root.dataset["state"]]).toEqual([0, "ready"]);
    button(panel.root, "run again")?.click();
    await vi.waitFor(() => expect(text(panel.root.querySelector(".rs-badge"))).toContain("an unchanged run gives"));
  });

  it.each([
    [62, ["L8H0"], 63, null],
    [63, ["L8H0", "L8H1"], 64, ["A run can be without at most 64 heads."]],
    [64, ["L8H0"], 64, ["A run can be without at most 64 heads."]],
  ])("is without at most 64 heads: %i are out, and %j are taken out", (count, heads, out, sentence) => {
    const store = storeOf(["a"]);
    const before = Array.from({ length: count }, (_, i) => `L${Math.floor(i / 8)}H${i % 8}`);
    store.against.value = { without: before };
    takeOut(store, heads);
    expect(store.against.value?.without).toEqual([...before, ...heads].slice(0, out));
    expect(store.sentence.value).toEqual(sentence);
  });

  it("has names, a key, and only heads that the model has", () => {
    expect(runNames("cache", 0, { without: ["L1H1", "L2H0"] })).toEqual(["as cached", "without L1H1, L2H0 (zeroed)"]);
    expect(againstKey({ without: ["L1H1"] })).toBe(
      againstKey({ cache: null, prompt: null, without: ["L1H1"], replaced_by: "zero" }),
    );
    const shape = { layers: 2, heads: 2, prompts: 1, positions: 3 };
    const fit = (without: string[]) => SELECTABLE.against.fit?.({ without }, shape);
    expect(fit(["L1H1", "L1H1", "L9H9", "<b>"])?.without).toEqual(["L1H1"]);
    expect(fit(["L9H9"])).toBeNull();
    expect(read("against", { without: Array.from({ length: 65 }, () => "L0H0") })).toBeNull();
    const kept = (cache: string | null) => SELECTABLE.against.fit?.({ cache, prompt: 4 }, shape);
    expect([kept(null), kept("other")]).toEqual([null, { cache: "other", prompt: 4 }]); // it may have more prompts
    expect([read("effect", "all"), read("replacedBy", "one")]).toEqual(["direct", "zero"]);
  });
});

describe("a turn", () => {
  it.each(["", "a b", '")', "x".repeat(101), "a\n"])("accepts only a token, not %j", (token) => {
    expect(() => turnCode(token)).toThrow();
  });

  it("is a silent request that a sidebar recognises, and exists only if there is a kernel", async () => {
    const sent: { header: { msg_id: string }; content: Record<string, unknown> }[] = [];
    const kernel = {
      clientId: "c",
      username: "u",
      sendShellMessage: (message: never) => {
        sent.push(message);
        return { done: Promise.resolve({ content: { status: "aborted" } }) };
      },
    };
    expect([isTurnKernel(kernel), isTurnKernel(null), isTurnKernel({ clientId: "c" })]).toEqual([true, false, false]);
    await takeTurn(kernel, "abc-1");
    expect(isTurn(sent[0]?.header.msg_id ?? "")).toBe(true);
    expect(sent[0]?.content).toMatchObject({ silent: true, store_history: false, stop_on_error: false });
    const el = document.createElement("div");
    const none = transportOver({ on: () => undefined } as never, el);
    const inLab = transportOver({ on: () => undefined, widget_manager: { kernel } } as never, el);
    expect([none.takeTurn, typeof inLab.takeTurn]).toEqual([undefined, "function"]);
  });
});

describe("the values of an effect", () => {
  const reply = { kind: "effects", done: 1, total: 2 } as EffectsReply;
  const found = {
    reply,
    total: Float32Array.of(3, NaN),
    direct: Float32Array.of(2, 0.5),
    estimate: Float32Array.of(2.5, 1),
    isPutIn: false,
  };
  it.each([
    ["total", [3, 1], [false, true]],
    ["indirect", [1, 0.5], [false, true]],
    ["estimate", [2.5, 1], [true, true]],
  ] as const)("%s", (effect, values, estimated) => {
    expect([...valuesOf(found, effect)]).toEqual(values);
    expect([0, 1].map((at) => isEstimated(found, effect, at))).toEqual(estimated);
  });

  it.each<[string, number[], string[], ((store: Store) => void) | null, string]>([
    ["not measured", [2, 0.5], [], null, "empty: not measured"],
    ["not measured, or without attention", [2, NaN], [], null, "empty: not measured, or no attention in this layer"],
    ["not cached", [2, NaN], ["heads"], (store) => (store.effect.value = "direct"), "empty: not cached"],
    ["without attention", [2, NaN], ["MLPs"], (store) => (store.effect.value = "direct"), "empty: no attention"],
  ])("have no value in an exported map, with the reason: %s", (_, rows, missing, change, words) => {
    const store = storeOf(["a", "b", "c"], [], { layers: 2, heads: 1 });
    store.headRows.value = attributionOf(rows, { missing });
    store.effect.value = "total";
    const none = Float32Array.of(NaN, NaN);
    store.effects.heads.found.value = { ...found, total: none, estimate: none };
    change?.(store);
    const shown = picturesOf(store).find(({ picture }) => picture === "heads");
    if (shown?.picture !== "heads") throw new Error("no map");
    expect(headsFigure(shown, settingOf(store)).replace(/<[^>]+>/g, " ")).toContain(words);
  });

  it("are exported with what is estimated", () => {
    const store = storeOf(["a", "b", "c"], [2, 0.5], { layers: 1, heads: 2 });
    store.effect.value = "total";
    store.effects.heads.found.value = found;
    const shown = picturesOf(store).find(({ picture }) => picture === "heads");
    if (shown?.picture !== "heads") throw new Error("no map");
    const table = tableOf(shown, settingOf(store));
    expect(table.columns).toEqual(["layer", "head", "value", "estimated", "total", "direct", "indirect", "estimate"]);
    expect([...table.rows]).toEqual([
      [0, 0, 3, "no", 3, 2, 1, 2.5],
      [0, 1, 1, "yes", NaN, 0.5, NaN, 1],
    ]);
    const svg = headsFigure(shown, settingOf(store));
    expect(svg).toContain("what each head adds in total to the logit difference");
    expect(svg.match(/class="hatch"/g)).toHaveLength(1);
  });
});

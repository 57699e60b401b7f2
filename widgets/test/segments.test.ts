// Segments: the folded token strip, and the tab with which segments a head reads.
import { describe, expect, it, vi } from "vitest";
import recording from "../dev/recording.json";
import type { Setting } from "../src/export/pictures";
import { type Snapshot, unpacked } from "../src/snapshot/snapshot";
import { meanOver, sumOver } from "../src/state/segments";
import { SEGMENT_MAP } from "../src/views/segments/segments-export";
import { float32 } from "../src/wire/client";
import type { SegmentRange } from "../src/wire/protocol.gen";
import { all, key, open, text } from "./open";

const RANGES: SegmentRange[] = [
  { name: "beginning", start: 0, end: 3 },
  { name: "end", start: 3, end: 6 },
];
const { entries } = recording as unknown as Snapshot;
const buffersOf = (kind: string, is: (ask: Record<string, unknown>) => boolean = () => true): Float32Array[] =>
  (entries.find(({ ask }) => ask.kind === kind && is(ask as unknown as Record<string, unknown>))?.buffers ?? []).map(
    (packed) => float32(unpacked(packed)),
  );

const options = (root: HTMLElement): string[] =>
  all(root, ".rs-tokens [role=option]").map((node) => node.dataset["position"] ?? `s${node.dataset["segment"]}`);
const cell = (root: HTMLElement, name: string): HTMLElement | null => root.querySelector(`[data-cell="${name}"]`);

describe("sums over a segment", () => {
  const segment = { name: "", start: 1, end: 4 };
  it("leaves out what is not known", () => {
    expect(sumOver([9, 1, NaN, 2], segment)).toBe(3);
    expect(meanOver([9, 1, NaN, 2], segment)).toBe(1.5);
    expect(sumOver([9], segment)).toBeNaN();
    expect(meanOver([1, 3], { ...segment, start: -1, end: 2 })).toBe(2);
  });
});

describe("the folded strip", () => {
  it("has a chip for each segment, and the tokens of an unfolded one", async () => {
    const { root, settled } = await open({ segments: RANGES });
    await settled();
    await vi.waitFor(() => expect(options(root)).toEqual(["s0", "s1"]));
    expect(all(root, ".rs-segment").map(text)).toEqual(["beginning3", "end3"]);
    const [first, last] = all(root, ".rs-segment");
    expect(last?.getAttribute("aria-selected")).toBe("true"); // it has the destination
    first?.click();
    expect(options(root)).toEqual(["s0", "0", "1", "2", "s1"]);
    first?.focus();
    key(first, "ArrowRight");
    expect((document.activeElement as HTMLElement).dataset["position"]).toBe("0");
    key(document.activeElement, "End");
    expect((document.activeElement as HTMLElement).dataset["segment"]).toBe("1");
    key(document.activeElement, "Enter");
    expect(options(root)).toEqual(["s0", "0", "1", "2", "s1", "3", "4", "5"]);
    key(document.activeElement, " ");
    first?.click();
    expect(options(root)).toEqual(["s0", "s1"]);
  });

  it("colours a chip by the sums over its tokens", async () => {
    const { root, settled } = await open({ segments: RANGES, heads: ["L1H0"] });
    await settled();
    const read = entries.find(({ ask: { kind, ...about } }) => {
      const { layer, head, prompt, position, rows = null } = about as Record<string, unknown>;
      return kind === "attention" && rows === null && `${layer} ${head} ${prompt} ${position}` === "1 0 0 last";
    });
    if (read?.reply?.kind !== "attention") throw new Error("not recorded");
    const { parts } = read.reply;
    const row = (what: string): Float32Array =>
      float32(unpacked(read.buffers?.[parts.findIndex((part) => part.what === what)] ?? ""));
    const sums = (values: Float32Array): string[] =>
      [0, 3].map((at) =>
        values
          .subarray(at, at + 3)
          .reduce((a, b) => a + b, 0)
          .toFixed(4),
      );
    await vi.waitFor(() =>
      expect(all(root, ".rs-segment").map((node) => node.dataset["attention"])).toEqual(sums(row("reads"))),
    );
    expect(all(root, ".rs-segment").map((node) => node.dataset["added"])).toEqual(sums(row("brings")));
  });

  it("shows what all heads add, while none is in focus", async () => {
    const { root, settled } = await open({ segments: RANGES });
    await settled();
    const heads = buffersOf("attribute", (ask) => ask["by"] === "head" && ask["prompt"] === 0)[0] ?? [];
    const total = [...heads].slice(0, 6).reduce((a, b) => a + b, 0);
    await vi.waitFor(() => {
      const sums = all(root, ".rs-segment").map((node) => Number(node.dataset["added"]));
      expect(sums.reduce((a, b) => a + b, 0)).toBeCloseTo(total, 3);
    });
  });

  it("is not there in the mean over prompts, and the choice neither", async () => {
    const { root, settled } = await open({ segments: RANGES, prompt: null });
    await settled();
    expect(options(root)).toEqual(["0", "1", "2", "3", "4", "5"]);
    expect(root.querySelector<HTMLElement>(".rs-segment-choice")?.hidden).toBe(true);
  });

  it("can be unfolded completely, and chosen again", async () => {
    const { root, model, settled } = await open({ segments: RANGES });
    await settled();
    await vi.waitFor(() => expect(options(root)).toEqual(["s0", "s1"]));
    const select = root.querySelector<HTMLSelectElement>(".rs-segment-choice select");
    if (!select) throw new Error("no choice");
    const choose = (value: string): void => {
      select.value = value;
      select.dispatchEvent(new Event("change"));
    };
    choose("");
    expect(model.state.segments).toBeNull();
    expect(options(root)).toEqual(["0", "1", "2", "3", "4", "5"]);
    choose("ranges");
    expect(model.state.segments).toEqual(RANGES);
    await vi.waitFor(() => expect(options(root)).toEqual(["s0", "s1"]));
  });
});

describe("its exports", () => {
  const map = {
    head: "L1H0",
    weighting: "pattern" as const,
    segments: RANGES,
    meaning: "attention",
    notes: [],
    values: Float32Array.of(1, 0, 0.25, 0.75),
    later: Float32Array.of(0.25, NaN),
  };
  const setting = { source: ["model"], target: "logit", tokens: [] } as unknown as Setting;
  it("are a row for each cell, and a figure", () => {
    const { columns, rows } = SEGMENT_MAP.table({ picture: "segments", map }, setting);
    expect(columns).toEqual(["head", "destination", "destination_name", "source", "source_name", "value"]);
    expect([...rows]).toEqual([
      ["L1H0", 0, "beginning", 0, "beginning", 1],
      ["L1H0", 0, "beginning", 1, "end", 0],
      ["L1H0", 1, "end", 0, "beginning", 0.25],
      ["L1H0", 1, "end", 1, "end", 0.75],
      ["L1H0", "", "all later", 0, "beginning", 0.25],
      ["L1H0", "", "all later", 1, "end", NaN],
    ]);
    const figure = SEGMENT_MAP.figure({ picture: "segments", map }, setting);
    expect(figure).toContain("0.75");
    expect(figure).toContain("0 beginning");
    expect(SEGMENT_MAP.heads?.({ picture: "segments", map })).toEqual(["L1H0"]);
  });
});

describe("the tab", () => {
  it("has the map of the head in focus, and ranks heads for a cell", async () => {
    const { root, settled } = await open({ segments: RANGES, heads: ["L1H0"], tab: "segments" });
    await settled();
    const [map = new Float32Array(0), , later = new Float32Array(0)] = buffersOf(
      "segment-map",
      (ask) => ask["layer"] === 1 && ask["head"] === 0,
    );
    await vi.waitFor(() => expect(cell(root, "1 0")?.dataset["value"]).toBe(map[2]?.toFixed(5)));
    expect(cell(root, "0 0")?.dataset["value"]).toBe(map[0]?.toFixed(5));
    expect(cell(root, "0 1")?.dataset["value"]).toBeUndefined();
    expect(cell(root, "0 1")?.getAttribute("aria-label")).toContain("not possible");
    expect(cell(root, "later 0")?.dataset["value"]).toBe(later[0]?.toFixed(5));
    const ranked = (): (string | undefined)[] => all(root, ".rs-segment-head").map((node) => node.dataset["head"]);
    expect(text(root.querySelector(".rs-segment-title"))).toBe("end reads beginning most through these heads (of 6)");
    expect(ranked()).toHaveLength(6);
    cell(root, "later 0")?.click();
    await vi.waitFor(() =>
      expect(text(root.querySelector(".rs-segment-title"))).toContain("All later positions read beginning"),
    );
    const head = all(root, ".rs-segment-head")[0];
    head?.click();
    expect(head?.getAttribute("aria-pressed")).toBe(String(head?.dataset["head"] !== "L1H0"));
  });

  it("is not offered without segments", async () => {
    const { root, model, settled } = await open({ tab: "segments" });
    await settled();
    expect(root.querySelector('[data-tab="segments"]')).toBeNull();
    await vi.waitFor(() => expect(model.state.tab).toBe("attention"));
  });
});

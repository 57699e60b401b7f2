import { describe, expect, it, vi } from "vitest";
import { enlargedKernel } from "../dev/enlarged-kernel";
import { recordedKernel } from "../dev/recorded-kernel";
import { css, divergingRgb, type Rgb, sequentialRgb } from "../src/draw/colours";
import { inkOn, luminance } from "../src/draw/ink";
import { asSelection, type Selection, select, shownOf } from "../src/state/selection";
import { Store } from "../src/state/store";
import { extent, tilesIn } from "../src/views/token-lens/lens-tiles";
import type { Ask } from "../src/wire/client";
import { all, key, open, text } from "./open";

type Tile = Extract<Ask, { kind: "token-lens" }>;
const LARGE = { layers: 40, heads: 1, positions: 120, prompts: 1 };
const PATIENT = { timeout: 10_000 }; // without a browser, hundreds of cells take long
const grid = (root: HTMLElement): HTMLElement | null => root.querySelector('[role="grid"][aria-label="Token lens"]');
const tiles = (asked: { ask: Ask }[]): Tile[] => asked.flatMap(({ ask }) => (ask.kind === "token-lens" ? [ask] : []));

describe("token lens", () => {
  it("requests only what is visible, the last layers first, and more when the user scrolls", async () => {
    const { root, model } = await open({ tab: "token-lens" }, enlargedKernel(LARGE));
    await vi.waitFor(() => {
      expect(all(root, ".rs-lens-cell").length).toBeGreaterThan(0);
      expect(all(root, ".rs-lens-cell").filter((cell) => text(cell) === "")).toHaveLength(0);
    }, PATIENT);
    const asked = tiles(model.asked);
    const points = new Set(asked.flatMap((tile) => tile.points));
    expect(asked[0]?.points).toEqual(["final_post"]);
    expect(points.has("0_pre")).toBe(false);
    expect(points.size).toBeLessThan(25);
    expect(Math.min(...asked.map((tile) => tile.start))).toBeGreaterThan(60); // the cursor is at the last position
    expect(
      asked.every((tile) => tile.points.length <= 4 && tile.stop - tile.start <= 32 && tile.norm === "recomputed"),
    ).toBe(true);

    key(grid(root), "End");
    grid(root)?.dispatchEvent(new KeyboardEvent("keydown", { key: "Home", ctrlKey: true, bubbles: true }));
    await vi.waitFor(
      () => expect(tiles(model.asked).some((tile) => tile.points.includes("0_pre") && tile.start === 0)).toBe(true),
      PATIENT,
    );
    expect(grid(root)?.getAttribute("aria-activedescendant")).toMatch(/-0-0$/);
  }, 30_000);

  it("reads a cell in a sentence and in a list; marks ranks up to ten; Enter selects its position", async () => {
    const { root, model, settled } = await open({ tab: "token-lens" });
    await settled();
    await vi.waitFor(() => expect(all(root, ".rs-lens-cell[data-rank]").length).toBeGreaterThan(0));
    key(grid(root), "ArrowUp"); // the cursor begins at the last point and the destination
    const active = (): Element | null => root.querySelector(`#${grid(root)?.getAttribute("aria-activedescendant")}`);
    const cell = active();
    expect(text(root.querySelector(".rs-sentence"))).toMatch(
      /^If the model stopped after the last layer \(final_post\) at “·went” \(position 5\), it would predict “.+” 0\.\d+; the answer “·Mary” 0\.\d+, rank \d+$/,
    );
    expect(text(root.querySelector(".rs-lens-reading h4"))).toBe("final_post at ·went");
    expect(all(root, ".rs-lens-reading li").length).toBeGreaterThanOrEqual(7);
    key(grid(root), "ArrowLeft");
    expect(active()).not.toBe(cell);
    key(grid(root), "Enter");
    expect(model.state.position).toBe(4);
  });

  it("shares with Python whether it has the points after each attention, and restores it", async () => {
    const { root, model, settled } = await open({ tab: "token-lens", lens_rows: "points" });
    await settled();
    const rows = (): string[] => all(root, '[role="rowheader"]').map(text);
    await vi.waitFor(() => expect(rows()).toContain("1_mid"));
    all(root, '[aria-label="Points of the token lens"] button')[0]?.click();
    expect(model.state.lens_rows).toBe("layers");
    expect(rows()).not.toContain("1_mid");
    const store = new Store();
    select(store, asSelection({ lensRows: "points" }) as Selection);
    expect([shownOf(store).lens_rows, asSelection({ lensRows: "none" })?.lensRows]).toEqual(["points", "layers"]);
  });

  it("is there again at once when the user leaves a prompt that was refused", async () => {
    const honest = recordedKernel();
    const { root, model, settled } = await open({ tab: "token-lens" }, (ask) =>
      ask.kind === "token-lens" && ask.prompt === 1
        ? { failure: { code: "missing", message: "Keep it." } }
        : honest(ask),
    );
    await settled();
    const view = root.querySelector(".rs-lens-view");
    model.set("prompt", 1);
    await vi.waitFor(() => expect(view?.hasAttribute("inert")).toBe(true));
    model.set("prompt", 0);
    expect(view?.hasAttribute("inert")).toBe(false);
  });

  it("requests no refused tile again when another tile arrives, and still gives the reason", async () => {
    const honest = enlargedKernel(LARGE);
    const isRefused = ({ points }: Tile): boolean => points.includes("final_post");
    const { root, model } = await open({ tab: "token-lens" }, (ask) =>
      ask.kind === "token-lens" && isRefused(ask)
        ? { failure: { code: "out-of-memory", message: "The tile is too large." } }
        : honest(ask),
    );
    const isDrawn = (): boolean => all(root, ".rs-lens-cell").some((cell) => text(cell) !== "");
    await vi.waitFor(() => expect(isDrawn()).toBe(true), PATIENT);
    expect(tiles(model.asked).filter(isRefused)).toHaveLength(1);
    expect(text(root.querySelector(".rs-token-lens .rs-view-trouble"))).toBe("The tile is too large.");
  }, 30_000);

  it("has no rank if the target is a direction, and shows tokens as text", async () => {
    const honest = recordedKernel();
    const { root, settled } = await open(
      { tab: "token-lens", wire_target: { contrasts: [], direction: "d1" } },
      (ask) => {
        const outcome = honest(ask);
        if ("failure" in outcome || outcome.reply.kind !== "token-lens") return outcome;
        return {
          reply: {
            ...outcome.reply,
            cells: outcome.reply.cells.map((row) =>
              row.map((cell) => ({ ...cell, tokens: ["<img src=x onerror=alert(1)>"], answer: null, rank: null })),
            ),
          },
        };
      },
    );
    await settled();
    await vi.waitFor(() => expect(text(all(root, ".rs-lens-cell")[0])).toBe("<img·src=x·onerror=alert(1)>"));
    expect([
      root.querySelector("img"),
      root.querySelector(".rs-lens-cell[data-rank]"),
      text(root.querySelector(".rs-token-lens .rs-caption")).includes("rank"),
    ]).toEqual([null, null, false]);
  });
});

describe("tiles", () => {
  it("cover the visible part, the deepest first, and never extend beyond the last position", () => {
    const points = Array.from({ length: 10 }, (_, i) => `${i}_pre`);
    const question = { key: "k", points, positions: 40, ask: { target: { contrasts: [] } } };
    const found = tilesIn(question, { rows: [3, 10], columns: [0, 40] }).map((id) => extent(question, id));
    expect(found.map(({ points, start, stop }) => `${points[0]} ${start}-${stop}`)).toEqual([
      "8_pre 32-40",
      "8_pre 0-32",
      "4_pre 32-40",
      "4_pre 0-32",
      "0_pre 32-40",
      "0_pre 0-32",
    ]);
    expect(tilesIn(question, { rows: [0, 0], columns: [0, 0] })).toEqual([]);
  });
});

describe("ink", () => {
  it.each(["light", "dark"] as const)("is readable on every colour of the scales (%s)", (theme) => {
    const contrast = (rgb: Rgb): number => {
      const [light, dark] = [luminance(rgb), inkOn(rgb) === "#000" ? 0 : 1].sort((a, b) => b - a) as [number, number];
      return (light + 0.05) / (dark + 0.05);
    };
    for (let i = 0; i <= 100; i += 1)
      for (const rgb of [sequentialRgb(i / 100, theme), divergingRgb(i - 50, 50, theme)])
        expect(contrast(rgb), css(rgb)).toBeGreaterThanOrEqual(4.5);
  });
});

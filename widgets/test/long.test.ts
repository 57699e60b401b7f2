import { describe, expect, it, vi } from "vitest";
import { downSampled, enlargedKernel } from "../dev/enlarged-kernel";
import { blockOf, covers, cropped, everything, finer, indexOf, stepOf } from "../src/draw/plane";
import type { Traits } from "../src/entry/anywidget";
import { settingOf, shownPictures } from "../src/export/shown-pictures";
import { Store } from "../src/state/store";
import { unpacked } from "../src/views/attention/attention-data";
import { strongest } from "../src/views/attention/attention-words";
import { labelled, sureOf } from "../src/views/attention/card-labels";
import { all, key, open, text } from "./open";
import { figure, tableOf } from "./pictures";

const POSITIONS = 520;
const SHAPE = { layers: 1, heads: 2, positions: POSITIONS, prompts: 1 };
const random = Float32Array.from({ length: 30 * 30 }, (_, i) => (Math.sin(i * 12.9898) * 43758.5453) % 1);

describe("planes", () => {
  it("are cut so that a reply never has more than 512 × 512 values", () => {
    expect([15, 512, 513, 1024, 4096].map((n) => stepOf(n, n))).toEqual([1, 1, 2, 2, 8]);
    expect([stepOf(1, 4096), stepOf(4096, 1), stepOf(1, 262_145)]).toEqual([1, 1, 2]);
  });
  it("map a cell to its value and a value to its cells, also in the last, smaller blocks", () => {
    const plane = { rows: { start: 4, stop: 21 }, columns: { start: 0, stop: 30 }, step: 8 };
    expect([
      indexOf(plane, 4, 0),
      indexOf(plane, 12, 9),
      indexOf(plane, 20, 29),
      indexOf(plane, 3, 0),
      indexOf(plane, 21, 0),
    ]).toEqual([0, 5, 11, -1, -1]);
    expect(blockOf(plane, 20, 29)).toEqual({ rows: { start: 20, stop: 21 }, columns: { start: 24, stop: 30 } });
  });
  it("are cropped to the blocks that contain the visible part", () => {
    const { frame, take } = cropped({ ...everything(30), step: 4 }, { left: 9, top: 17, span: 8 });
    expect(frame).toEqual({ rows: { start: 16, stop: 28 }, columns: { start: 8, stop: 20 }, step: 4 });
    const side = Math.ceil(30 / 4);
    const map = Float32Array.from({ length: side * side }, (_, i) => i);
    expect([...take(map)]).toEqual([4, 5, 6].flatMap((row) => [2, 3, 4].map((column) => row * side + column)));
  });
  it.each([
    ["the end of both", { left: 25, top: 25, span: 5 }, [24, 30], [24, 30], [6, 7], [6, 7]],
    ["the end of the rows", { left: 0, top: 25, span: 5 }, [24, 30], [0, 8], [6, 7], [0, 1]],
    ["the last cell", { left: 29, top: 29, span: 1 }, [28, 30], [28, 30], [7], [7]],
    ["the first cell", { left: 0, top: 0, span: 1 }, [0, 4], [0, 4], [0], [0]],
    ["one block", { left: 4, top: 8, span: 4 }, [8, 12], [4, 8], [2], [1]],
    ["all", { left: 0, top: 0, span: 30 }, [0, 30], [0, 30], [0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7]],
  ])("are cropped to %s", (_, part, rows, columns, down, across) => {
    const { frame, take } = cropped({ ...everything(30), step: 4 }, part);
    expect(frame).toEqual({
      rows: { start: rows[0], stop: rows[1] },
      columns: { start: columns[0], stop: columns[1] },
      step: 4,
    });
    expect([...take(Float32Array.from({ length: 64 }, (_, i) => i))]).toEqual(
      down.flatMap((row) => across.map((column) => row * 8 + column)),
    );
    expect(covers({ ...frame }, part)).toBe(true);
  });
  it("are refined if that helps, with a margin", () => {
    expect(finer({ left: 0, top: 0, span: 4096 }, 4096, 8)).toBeNull();
    expect(finer({ left: 0, top: 0, span: 100 }, 400, 1)).toBeNull();
    const near = finer({ left: 4000, top: 10, span: 96 }, 4096, 8);
    expect(near).toEqual({ rows: { start: 0, stop: 512 }, columns: { start: 3584, stop: 4096 } });
    const half = finer({ left: 1024, top: 2048, span: 2048 }, 4096, 8);
    expect(half && covers({ ...half, step: 4 }, { left: 1024, top: 2048, span: 2048 })).toBe(true);
  });
  it("are sent as triangles, and in units of their scale", () => {
    const square = unpacked(
      { what: "pattern", scale: 2, wide: true, triangle: true },
      new DataView(Float32Array.of(1, 2, 3, 4, 5, 6).buffer),
      { ...everything(3), step: 1 },
    );
    expect([...square]).toEqual([2, 0, 0, 4, 6, 0, 8, 10, 12]);
  });
});

it("the strongest values of a line are the first ones after sorting", () => {
  const line = random.subarray(0, 200).map((value, i) => (i % 7 === 0 ? NaN : value));
  const sorted = [...line.keys()]
    .filter((i) => Math.abs(line[i] ?? 0) > 0)
    .sort((a, b) => Math.abs(line[b] ?? 0) - Math.abs(line[a] ?? 0));
  for (const most of [1, 3, 5]) expect(strongest(line, most)).toEqual(sorted.slice(0, most));
  expect(strongest(Float32Array.of(0, NaN), 3)).toEqual([]);
});

it("only some labels are shown if there are many, and the marked ones always", () => {
  expect(labelled({ start: 100, span: 4000 }, 240, [135, 4099])).toEqual([
    135,
    ...Array.from({ length: 19 }, (_, i) => 300 + i * 200),
    4099,
  ]);
});

it("the label under the pointer replaces that of the destination if they would overlap", () => {
  expect(sureOf(20, 21, 3.4, 12)).toEqual([21]);
  expect(sureOf(20, 24, 3.4, 12)).toEqual([20, 24]);
  expect(sureOf(20, null, 3.4, 12)).toEqual([20]);
});

describe("a long prompt", { timeout: 20_000 }, () => {
  const opened = async (traits: Partial<Traits> = {}) => {
    const asked = await open({ heads: ["L0H0"], ...traits }, enlargedKernel(SHAPE));
    await vi.waitFor(() => expect(asked.root.dataset["state"]).toBe("ready"), 10_000);
    const card = asked.root.querySelector<HTMLElement>('[aria-label="Attention L0H0"]');
    const matrix = card?.querySelector<HTMLElement>(".rs-matrix") ?? null;
    const parts = () => asked.model.asked.map(({ ask }) => ask).filter((ask) => ask.kind === "attention");
    return { ...asked, card, matrix, parts, said: () => text(asked.root.querySelector(".rs-sentence")) };
  };

  it("is shown in blocks, with a remark, and cell by cell in a zoom; the mini-map moves", async () => {
    const { card, matrix, parts, said, root } = await opened();
    expect(text(card?.querySelector(".rs-pooled"))).toBe("strongest of 2 × 2");
    expect(card?.querySelector<HTMLElement>(".rs-mini-map")?.hidden).toBe(true);
    key(matrix, "Home");
    await vi.waitFor(() =>
      expect(said()).toMatch(/^L0H0: positions 518–519 read 0–1: strongest attention 0\.\d\d · zoom in/),
    );
    key(matrix, "ArrowUp"); // moves by one block
    expect(said()).toContain("positions 516–517 read 0–1");
    for (let i = 0; i < 4; i += 1) key(matrix, "+");
    await vi.waitFor(() => expect(card?.querySelector(".rs-pooled")).toBeNull());
    const asked = parts().filter((ask) => ask.rows && ask.columns);
    expect(asked).toHaveLength(1); // the parts of the next zooms lie inside this one
    // The part of the first zoom has 520 / 1.4 rows and columns. It gets a margin, up to 512.
    expect(asked[0]).toMatchObject({ rows: { start: 4, stop: 516 }, columns: { start: 4, stop: 516 } });
    key(matrix, "ArrowLeft");
    await vi.waitFor(() => expect(said()).toMatch(/\(destination \d+\) (reads|cannot see)/));
    const map = card?.querySelector<HTMLElement>(".rs-mini-map");
    expect(map?.hidden).toBe(false);
    key(map, "End");
    expect(map?.getAttribute("aria-label")).toMatch(/^In view: destinations 385 to 519, sources 385 to 519, of 520/);
    key(map, "ArrowLeft");
    expect(map?.getAttribute("aria-label")).toContain("sources 317 to 451");
    key(matrix, "0");
    expect([text(card?.querySelector(".rs-pooled")), map?.hidden]).toEqual(["strongest of 2 × 2", true]);
    all(root, '[aria-label="Down-sampling"] button')
      .find((button) => text(button) === "mean")
      ?.click();
    await vi.waitFor(() => expect(text(card?.querySelector(".rs-pooled"))).toBe("mean of 2 × 2"));
    expect(parts().at(-1)).toMatchObject({ pool: "mean" });
  });

  it("has exact values of a row: they are requested, not taken from the blocks", async () => {
    const { card, parts } = await opened();
    await vi.waitFor(() => expect(text(card?.querySelector(".rs-reads"))).toMatch(/^“.+₅₁₉” reads “.+” 0\.\d\d/));
    expect(parts().some((ask) => ask.rows?.start === 519 && ask.rows.stop === 520 && !ask.columns)).toBe(true);
  });

  it("has only some of its tokens in the page; they follow the keyboard and the slider", async () => {
    const { root, matrix } = await opened({ presentation: "text" });
    expect(matrix).not.toBeNull();
    for (const [box, option] of [
      [".rs-tokens", ".rs-token"],
      [".rs-text-box", ".rs-word"],
    ] as const) {
      const strip = root.querySelector(box);
      const places = (): number[] =>
        [...(strip?.querySelectorAll<HTMLElement>(option) ?? [])].map((node) => Number(node.dataset["position"]));
      expect([places().length, places()[0], places().at(-1)]).toEqual([256, 264, 519]);
      key(strip?.querySelector('[data-position="519"]'), "Home");
      expect([places()[0], document.activeElement?.getAttribute("data-position")]).toEqual([0, "0"]);
    }
    const slider = root.querySelector<HTMLInputElement>(".rs-stretch input");
    if (!slider) throw new Error("no slider");
    slider.value = "200";
    slider.dispatchEvent(new Event("input"));
    expect(root.querySelector(".rs-tokens .rs-token")?.getAttribute("data-position")).toBe("200");
    expect(slider.getAttribute("aria-valuetext")).toBe("positions 200 to 455 of 520");
  });

  it("shows in the strip what the head reads on which the pointer rests; the user's own place stays", async () => {
    const { root, said } = await opened({ heads: [] });
    const strip = root.querySelector<HTMLElement>(".rs-tokens") ?? expect.fail();
    const slider = root.querySelector<HTMLInputElement>(".rs-stretch input") ?? expect.fail();
    const range = (): number[] =>
      [0, -1].map((at) => Number([...strip.querySelectorAll<HTMLElement>(".rs-token")].at(at)?.dataset["position"]));
    expect(range()).toEqual([264, 519]);
    const point = (name: string): void =>
      void root
        .querySelector(`[role=gridcell][data-head=${name}]`)
        ?.dispatchEvent(new Event("pointerover", { bubbles: true }));
    point("L0H0");
    await vi.waitFor(() => expect(said()).toContain("reads"));
    expect(range()).toEqual([264, 519]); // it waits, so that nothing flickers
    const first = Number(/reads .+?([₀-₉]+) /.exec(said())?.[1]?.replace(/./g, (d) => String("₀₁₂₃₄₅₆₇₈₉".indexOf(d))));
    expect(first).toBeLessThan(264);
    await vi.waitFor(() => expect(range()).toEqual([0, 255]));
    slider.value = "264";
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    await new Promise((done) => setTimeout(done, 400));
    expect(range()).toEqual([264, 519]);
  });

  it("is shaded in the text by one row, which is requested for a head or for all heads", async () => {
    const { root } = await opened({ presentation: "text" });
    const line = (): string => text(root.querySelector(".rs-text-line"));
    await vi.waitFor(() => expect(line()).toMatch(/^L0H0: “.+₅₁₉” reads /));
    all(root, ".rs-head-chip").at(-1)?.click();
    await vi.waitFor(() => expect(line()).toMatch(/^mean of all 2 heads: “.+₅₁₉” reads .* 0\.00/));
  });

  it("is exported as it is shown: in blocks with their ends, which the figure names", () => {
    const map = Float32Array.from({ length: 900 }, (_, i) =>
      i % 30 > Math.floor(i / 30) ? 0 : Math.abs(random[i] ?? 0),
    );
    const blocks = { ...downSampled(30, map, {}), step: 4 };
    const side = Math.ceil(30 / 4);
    const picture = {
      picture: "attention" as const,
      weighting: "pattern" as const,
      ownRange: false,
      pool: "peak" as const,
      maps: [
        {
          name: "L0H0",
          value: 1,
          ...blocks,
          maps: { pattern: map.subarray(0, side * side) },
          sourceContributions: null,
        },
      ],
    };
    const setting = {
      ...settingOf(new Store()),
      tokens: Array.from({ length: 30 }, (_, i) => ({ text: `t${i}`, shown: `t${i}`, mark: "" })),
    };
    const { columns, rows } = tableOf(picture, setting);
    expect(columns).toEqual([
      "head",
      "destination_first",
      "destination_last",
      "source_first",
      "source_last",
      "strongest_attention",
    ]);
    expect([...rows].at(-1)?.slice(0, 5)).toEqual(["L0H0", 28, 29, 28, 29]);
    expect(figure(picture, setting)).toContain("each cell is the strongest of 4 × 4");
    expect(shownPictures(new Store())).toEqual([]);
  });
});

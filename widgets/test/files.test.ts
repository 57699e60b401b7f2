// Exports: tables, their text, file names, pixels.
import { afterEach, describe, expect, it, vi } from "vitest";
import { componentOf } from "../dev/component-table";
import { everything } from "../src/draw/plane";
import { csv, type Field, shortest } from "../src/export/csv";
import { offer, offered, type Setting } from "../src/export/pictures";
import { pixelSize, png, withResolution } from "../src/export/png";
import { copy, download, fileName, safe, saveWith } from "../src/export/save";
import { Store } from "../src/state/store";
import { exported, figure, type Picture, tableOf } from "./pictures";

afterEach(() => {
  saveWith(null);
  vi.useRealTimers();
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
  Reflect.deleteProperty(document, "execCommand");
  document.body.replaceChildren();
});

describe("a field of CSV", () => {
  it.each<[Field, string]>([
    ["", ""],
    ["plain text", "plain text"],
    ["a,b", '"a,b"'],
    ['a"b', '"a""b"'],
    ['"', '""""'],
    ["a\rb", '"a\rb"'],
    ["\r", '"\r"'],
    ["a\nb", '"a\nb"'],
    ["a\r\nb", '"a\r\nb"'],
    ["a;b\tc", "a;b\tc"],
    [" a ", " a "],
    ["=1", "'=1"],
    ["+1", "'+1"],
    ["-1", "'-1"],
    ["@x", "'@x"],
    ["＝1", "'＝1"],
    ["＋1", "'＋1"],
    ["－1", "'－1"],
    ["＠x", "'＠x"],
    ["  =1", "'  =1"],
    ["\t=1", "'\t=1"],
    ["\r=1", '"\'\r=1"'],
    ["'=1", "''=1"],
    ["''  -1", "'''  -1"],
    ["'s", "'s"],
    ["a=1", "a=1"],
    ["1-1", "1-1"],
    ["=1,2", '"\'=1,2"'],
    ["−1", "−1"],
    [0, "0"],
    [-0, "0"],
    [-1, "-1"],
    [NaN, ""],
    [Infinity, "inf"],
    [-Infinity, "-inf"],
  ])("%j is written %j", (field, text) => {
    expect(csv({ columns: ["a", "b"], rows: [[field, field]] })).toEqual([`a,b\r\n${text},${text}\r\n`]);
    expect(csv({ columns: ["a"], rows: [[field], [field]] })).toEqual([`a\r\n${text}\r\n${text}\r\n`]);
  });
  it("of a header is written like any other", () =>
    expect(csv({ columns: ["a,b", "=c", "d"], rows: [] })).toEqual(['"a,b",\'=c,d\r\n']));

  it.each<[number, string]>([
    [3.4028234663852886e38, "3.4028235e+38"],
    [1.1754943508222875e-38, "1.1754944e-38"],
    [1.2e-38, "1.2e-38"],
    [1e-38, "1e-38"],
    [1.4e-45, "1e-45"],
    [2.8e-45, "3e-45"],
    [-1e-45, "-1e-45"],
    [-0.1, "-0.1"],
    [123456.7, "123456.7"],
    [1234567.8, "1234567.8"],
    [2 / 3, "0.6666667"],
    [16777217, "16777216"],
    [1e-20, "1e-20"],
    [1.17549e-38, "1.17549e-38"],
  ])("the float32 of %s is written %s", (value, text) => expect(shortest(Math.fround(value))).toBe(text));
  it.each<[number, string]>([
    [1e300, "1e+300"],
    [0.1, "0.1"],
    [16777217, "16777217"],
    [-1 / 3, "-0.3333333333333333"],
  ])("%s, which is not a float32, is written as it is: %s", (value, text) => expect(shortest(value)).toBe(text));

  it.each([
    [0, [1]],
    [1, [2]],
    [9_998, [9_999]],
    [9_999, [10_000]],
    [10_000, [10_000, 1]],
    [10_001, [10_000, 2]],
    [19_999, [10_000, 10_000]],
    [20_000, [10_000, 10_000, 1]],
  ])("%i rows are written in parts of %j lines, and no row is lost", (count, lines) => {
    const parts = csv({ columns: ["n"], rows: Array.from({ length: count }, (_, i) => [i]) });
    expect(parts.map((part) => part.match(/\r\n/g)?.length)).toEqual(lines);
    expect(parts.join("")).toBe(["n", ...Array.from({ length: count }, (_, i) => String(i)), ""].join("\r\n"));
  });
});

const setting: Setting = {
  compared: null,
  cache: "cache",
  quantity: "logit difference",
  source: [],
  target: "",
  place: "",
  tokens: ["a", "b", "c"].map((text) => ({ text, shown: text, mark: "" })),
  destination: 2,
  layers: 2,
  prompts: 1,
};
const listed = (picture: Picture): Field[][] => {
  const { columns, rows } = tableOf(picture, setting);
  return [columns, ...rows];
};
const [half, quarter] = [0.5, 0.25];
const valuedRows = [
  { name: "x", component: componentOf("embed"), value: 1, std: null },
  { name: "y", component: componentOf("0_attn_out"), value: -2, std: 0.5 },
];
const map = (given: Partial<Extract<Picture, { picture: "attention" }>["maps"][number]> = {}) => ({
  name: "L0H1",
  value: 1,
  ...everything(2),
  step: 1,
  maps: { pattern: Float32Array.of(1, 0, half, half) },
  sourceContributions: null,
  ...given,
});
const attention = (pool: "peak" | "mean", ...maps: ReturnType<typeof map>[]): Picture => ({
  picture: "attention",
  weighting: "pattern",
  ownRange: false,
  pool,
  maps,
});
const lensCell = { tokens: ["p", "q"], probabilities: [half], answer: quarter, rank: 3 };

describe("a table", () => {
  it.each<[string, Picture, Field[][]]>([
    [
      "lens",
      { picture: "lens", points: valuedRows, norm: "frozen" },
      [
        ["point", "value", "std"],
        ["x", 1, NaN],
        ["y", -2, 0.5],
      ],
    ],
    [
      "layers, of one prompt",
      { picture: "layers", rows: valuedRows.slice(0, 1) },
      [
        ["component", "value"],
        ["x", 1],
      ],
    ],
    ["ranking of heads", { picture: "ranking", of: "heads", rows: [] }, [["head", "value"]]],
    [
      "ranking of neurons",
      { picture: "ranking", of: "neurons", rows: valuedRows.slice(1) },
      [
        ["neuron", "value", "std"],
        ["y", -2, 0.5],
      ],
    ],
    [
      "heads",
      { picture: "heads", layers: 2, heads: 2, values: Float32Array.of(1, 2, 3), std: null, score: null, pinned: [] },
      [
        ["layer", "head", "value"],
        [0, 0, 1],
        [0, 1, 2],
        [1, 0, 3],
        [1, 1, NaN],
      ],
    ],
    [
      "heads, with spread and score",
      {
        picture: "heads",
        layers: 1,
        heads: 2,
        values: Float32Array.of(1, 2),
        std: Float32Array.of(half),
        score: { name: "copying", meaning: "", low: 0, high: 1, values: Float32Array.of(NaN, quarter) },
        pinned: [],
      },
      [
        ["layer", "head", "value", "std", "copying"],
        [0, 0, 1, half, NaN],
        [0, 1, 2, NaN, quarter],
      ],
    ],
    [
      "attention",
      attention("peak", map()),
      [
        ["head", "destination", "destination_token", "source", "source_token", "attention"],
        ["L0H1", 0, "a", 0, "a", 1],
        ["L0H1", 0, "a", 1, "b", 0],
        ["L0H1", 1, "b", 0, "a", half],
        ["L0H1", 1, "b", 1, "b", half],
      ],
    ],
    [
      "attention in parts of two maps with different weightings",
      attention(
        "peak",
        map({ rows: { start: 1, stop: 2 }, columns: { start: 2, stop: 4 }, maps: { pattern: Float32Array.of(half) } }),
        map({
          name: "L1H0",
          rows: { start: 0, stop: 1 },
          columns: { start: 0, stop: 1 },
          maps: { contribution: Float32Array.of(-2), value: Float32Array.of(3) },
        }),
      ),
      [
        [
          "head",
          "destination",
          "destination_token",
          "source",
          "source_token",
          "attention",
          "value_weighted",
          "contribution",
        ],
        ["L0H1", 1, "b", 2, "c", half, NaN, NaN],
        ["L0H1", 1, "b", 3, "", NaN, NaN, NaN],
        ["L1H0", 0, "a", 0, "a", NaN, 3, -2],
      ],
    ],
    [
      "attention in blocks, with smaller blocks at the end",
      attention(
        "peak",
        map({
          rows: { start: 0, stop: 5 },
          columns: { start: 2, stop: 5 },
          step: 2,
          maps: { pattern: Float32Array.of(1, 2, 3, 4, 5), contribution: Float32Array.of(-1, -2, -3, -4, -5, -6) },
        }),
      ),
      [
        [
          "head",
          "destination_first",
          "destination_last",
          "source_first",
          "source_last",
          "strongest_attention",
          "strongest_contribution",
        ],
        ["L0H1", 0, 1, 2, 3, 1, -1],
        ["L0H1", 0, 1, 4, 4, 2, -2],
        ["L0H1", 2, 3, 2, 3, 3, -3],
        ["L0H1", 2, 3, 4, 4, 4, -4],
        ["L0H1", 4, 4, 2, 3, 5, -5],
        ["L0H1", 4, 4, 4, 4, NaN, -6],
      ],
    ],
    [
      "attention of two maps, one of them in blocks",
      attention(
        "mean",
        map({ rows: { start: 1, stop: 2 }, columns: { start: 0, stop: 1 }, maps: { pattern: Float32Array.of(half) } }),
        map({
          rows: { start: 0, stop: 2 },
          columns: { start: 0, stop: 2 },
          step: 2,
          maps: { value: Float32Array.of(7) },
        }),
      ),
      [
        [
          "head",
          "destination_first",
          "destination_last",
          "source_first",
          "source_last",
          "mean_attention",
          "mean_value_weighted",
        ],
        ["L0H1", 1, 1, 0, 0, half, NaN],
        ["L0H1", 0, 1, 0, 1, NaN, 7],
      ],
    ],
    [
      "positions",
      {
        picture: "positions",
        by: "layer",
        labels: ["m", "n"],
        positions: 2,
        values: Float32Array.of(1, 2, 3),
        own: Float32Array.of(NaN, 9),
        limit: 1,
      },
      [
        ["component", "position", "token", "value"],
        ["m", 0, "a", 1],
        ["m", 1, "b", 2],
        ["n", 0, "a", 3],
        ["n", 1, "b", NaN],
        ["measured", 0, "a", NaN],
        ["measured", 1, "b", 9],
      ],
    ],
    [
      "positions, without measured values",
      {
        picture: "positions",
        by: "layer",
        labels: ["m"],
        positions: 4,
        values: Float32Array.of(1, 2, 3, 4),
        own: Float32Array.of(NaN, NaN),
        limit: 1,
      },
      [
        ["component", "position", "token", "value"],
        ["m", 0, "a", 1],
        ["m", 1, "b", 2],
        ["m", 2, "c", 3],
        ["m", 3, "", 4],
      ],
    ],
    [
      "positions, with too few measured values",
      {
        picture: "positions",
        by: "layer",
        labels: [],
        positions: 2,
        values: new Float32Array(0),
        own: Float32Array.of(0),
        limit: 1,
      },
      [
        ["component", "position", "token", "value"],
        ["measured", 0, "a", 0],
        ["measured", 1, "b", NaN],
      ],
    ],
    [
      "token lens",
      {
        picture: "token-lens",
        points: ["u", "v", "w"],
        start: 1,
        cells: [
          [lensCell, null],
          [
            null,
            { tokens: ["r"], probabilities: [1], answer: null, rank: null },
            { tokens: ["t"], probabilities: [0] },
          ],
        ],
      },
      [
        ["point", "position", "token", "place", "predicted", "probability", "answer_probability", "answer_rank"],
        ["u", 1, "b", 1, "p", half, quarter, 3],
        ["u", 1, "b", 2, "q", NaN, quarter, 3],
        ["v", 2, "c", 1, "r", 1, NaN, NaN],
        ["v", 3, "", 1, "t", 0, NaN, NaN],
      ],
    ],
    [
      "prompts",
      {
        picture: "prompts",
        head: null,
        quantity: "logit",
        mean: 0,
        std: 0,
        rows: [
          { prompt: 1, value: half },
          { prompt: 0, value: -1 },
        ],
      },
      [
        ["prompt", "value"],
        [1, half],
        [0, -1],
      ],
    ],
    [
      "prompts, of a head",
      { picture: "prompts", head: "L1H1", quantity: "logit", mean: 0, std: 0, rows: [{ prompt: 0, value: -1 }] },
      [
        ["prompt", "head", "value"],
        [0, "L1H1", -1],
      ],
    ],
  ])("of %s", (_, picture, table) => expect(listed(picture)).toEqual(table));
});

describe("a figure's legends and axes", () => {
  const drawn = (picture: Picture): SVGElement =>
    new DOMParser().parseFromString(figure(picture, setting), "image/svg+xml").documentElement as unknown as SVGElement;
  const texts = (svg: Element): Element[] => [...svg.querySelectorAll("text")];
  const named = (svg: Element, words: string): Element | undefined =>
    texts(svg).find((node) => node.textContent === words);
  const colour = (hex: string | null | undefined): number[] =>
    (hex?.match(/[0-9a-f]{2}/g) ?? []).map((part) => parseInt(part, 16));

  it("name the sources above the picture and the destinations upright beside it", () => {
    const svg = drawn(attention("peak", map()));
    const [sources, destinations] = [named(svg, "from (source)"), named(svg, "to (destination)")];
    expect([sources?.getAttribute("transform") ?? null, sources?.getAttribute("text-anchor")]).toEqual([null, "end"]);
    expect(destinations?.getAttribute("transform")).toMatch(/^translate\([\d.]+ [\d.]+\) rotate\(-90\)$/);
    const [, x = NaN, y = NaN] = (
      /translate\(([\d.]+) ([\d.]+)\)/.exec(destinations?.getAttribute("transform") ?? "") ?? []
    ).map(Number);
    expect([x < Number(sources?.getAttribute("x")), y > Number(sources?.getAttribute("y"))]).toEqual([true, true]);
  });

  it("have positive values at the top and negative ones at the bottom, in the colours of the picture", () => {
    const svg = drawn({
      picture: "positions",
      by: "layer",
      labels: ["m"],
      positions: 3,
      values: Float32Array.of(4, -4, 0),
      own: Float32Array.of(NaN, NaN, NaN),
      limit: 4,
    });
    const bar = svg.querySelector("linearGradient");
    expect([bar?.getAttribute("y1"), bar?.getAttribute("y2")]).toEqual(["1", "0"]); // from the bottom up
    const stops = [...(bar?.querySelectorAll("stop") ?? [])].map((stop) => stop.getAttribute("stop-color"));
    const cells = [...svg.querySelectorAll(".cells > rect")].map((cell) => cell.getAttribute("fill"));
    expect([stops.at(-1), stops[0], stops[16]]).toEqual(cells);
    const [[red = 0, , blue = 0], [red2 = 0, , blue2 = 0]] = [colour(stops.at(-1)), colour(stops[0])];
    expect([blue > red, red2 > blue2]).toEqual([true, true]);
    const [top, middle, bottom] = ["+4.00", "0", "−4.00"].map((words) => Number(named(svg, words)?.getAttribute("y")));
    expect([Number(top) < Number(middle), Number(middle) < Number(bottom)]).toEqual([true, true]);
  });

  it.each<[string, Parameters<typeof map>[0], string[]]>([
    ["all of it", { ...everything(3), maps: { pattern: new Float32Array(9).fill(1) } }, []],
    [
      "its last rows",
      { rows: { start: 1, stop: 3 }, columns: { start: 0, stop: 3 }, maps: { pattern: new Float32Array(6).fill(1) } },
      ["destinations 1–2, sources 0–2"],
    ],
    [
      "one row",
      { rows: { start: 2, stop: 3 }, columns: { start: 0, stop: 3 }, maps: { pattern: new Float32Array(3).fill(1) } },
      ["destinations 2–2, sources 0–2"],
    ],
    [
      "blocks",
      { ...everything(3), step: 2, maps: { pattern: new Float32Array(4).fill(1) } },
      ["down-sampled: each cell is the strongest of 2 × 2"],
    ],
  ])("name the part that they show, and draw each of its marks: %s", (_, part, words) => {
    const svg = drawn(attention("peak", map(part)));
    expect(
      texts(svg).flatMap((node) =>
        /destinations|down-sampled/.test(node.textContent ?? "") ? [node.textContent?.replace(/^[ ·]+/, "")] : [],
      ),
    ).toEqual(words);
    expect(svg.querySelectorAll(".cells > rect")).toHaveLength(part?.maps?.pattern?.length ?? NaN);
    const [top = 0, bottom = 0] = [0, -1].map((at) =>
      Number([...svg.querySelectorAll(".cells > rect")].at(at)?.getAttribute("y")),
    );
    expect(bottom > top).toBe((part?.rows?.stop ?? 0) - (part?.rows?.start ?? 0) > 1);
  });

  it("have low values at the left and high values at the right if they are horizontal", () => {
    const svg = drawn(attention("peak", map()));
    const bar = svg.querySelector("linearGradient");
    expect([
      bar?.getAttribute("x1"),
      bar?.getAttribute("x2"),
      bar?.getAttribute("y1"),
      bar?.getAttribute("y2"),
    ]).toEqual(["0", "1", "0", "0"]);
    const [low, high] = ["0", "1"].map((words) => Number(named(svg, words)?.getAttribute("x")));
    expect(Number(low)).toBeLessThan(Number(high));
    expect(svg.querySelector(".cells > rect")?.getAttribute("fill")).toBe(
      [...(bar?.querySelectorAll("stop") ?? [])].at(-1)?.getAttribute("stop-color"),
    );
  });
});

describe("names of files", () => {
  it.each<[string[], string]>([
    [["cache", "Mary-John", "heads"], "cache-Mary-John-heads"],
    [[], "residscope"],
    [["", "..", "/"], "residscope"],
    [["", "a", ""], "a"],
    [["--a--", "-b-"], "a-b"],
    [["a b", "c_d"], "a-b-c_d"],
    [["a/../b"], "a-b"],
    [["e\u0301"], "é"],
    [["con.txt"], "con-txt"],
    [["🙂"], "residscope"],
    [["1", "2"], "1-2"],
  ])("%j: %s", (parts, name) => expect(fileName(...parts)).toBe(name));
  it.each<[string, number | undefined, string]>([
    ["a".repeat(61), undefined, "a".repeat(60)],
    ["a".repeat(60), undefined, "a".repeat(60)],
    [`${"a".repeat(59)}é`, undefined, "a".repeat(59)],
    [`${"a".repeat(58)}é`, undefined, `${"a".repeat(58)}é`],
    [`${"a".repeat(59)}-b`, undefined, "a".repeat(59)],
    ["abcdef", 3, "abc"],
    ["字字", 5, "字"],
    ["a---b", 3, "a"],
    [`${"-".repeat(12)}abc`, 3, ""],
    [`${"-".repeat(11)}abc`, 3, "a"],
  ])("%j, of %s bytes at most: %s", (part, most, name) => expect(safe(part, most)).toBe(name));
});

describe("saving", () => {
  it("offers a file under its name, and frees its memory after a minute", async () => {
    vi.useFakeTimers();
    const seen: unknown[] = [];
    vi.spyOn(URL, "createObjectURL").mockReturnValue("blob:made");
    const revoked = vi.spyOn(URL, "revokeObjectURL").mockImplementation(() => undefined);
    vi.spyOn(HTMLAnchorElement.prototype, "click").mockImplementation(function (this: HTMLAnchorElement) {
      seen.push(this.href, this.download, this.hidden, this.parentElement);
    });
    expect(await download("x.csv", new Blob(["a"]), document.body)).toBe("offered");
    expect(seen).toEqual(["blob:made", "x.csv", true, document.body]);
    expect(document.body.childElementCount).toBe(0);
    vi.advanceTimersByTime(59_999);
    expect(revoked).not.toHaveBeenCalled();
    vi.advanceTimersByTime(1);
    expect(revoked.mock.calls).toEqual([["blob:made"]]);
  });

  it("is done by a host that saves files itself, with the host's result", async () => {
    const given: [string, string][] = [];
    let answer = true;
    saveWith(async (name, blob) => {
      given.push([name, await blob.text()]);
      return answer;
    });
    const address = vi.spyOn(URL, "createObjectURL");
    expect(await download("x.csv", new Blob(["a"]), document.body)).toBe(true);
    answer = false;
    expect(await download("y.csv", new Blob(["b"]), document.body)).toBe(false);
    expect([given, address.mock.calls]).toEqual([
      [
        ["x.csv", "a"],
        ["y.csv", "b"],
      ],
      [],
    ]);
  });

  class Item {
    constructor(readonly items: Record<string, Promise<Blob>>) {}
  }
  it("copies a text that becomes ready later", async () => {
    const items: Item[] = [];
    vi.stubGlobal("ClipboardItem", Item);
    vi.stubGlobal("navigator", { clipboard: { write: async ([item]: Item[]) => void (item && items.push(item)) } });
    expect(await copy(Promise.resolve("words"), document.body)).toBe(true);
    const blob = await items[0]?.items["text/plain"];
    expect([await blob?.text(), blob?.type, Object.keys(items[0]?.items ?? {})]).toEqual([
      "words",
      "text/plain",
      ["text/plain"],
    ]);
  });
  it("copies it as text if only text may be written", async () => {
    const texts: string[] = [];
    vi.stubGlobal("navigator", { clipboard: { writeText: async (words: string) => void texts.push(words) } });
    const command = vi.fn(() => true);
    Object.assign(document, { execCommand: command });
    expect([await copy(Promise.resolve("words"), document.body), texts, command.mock.calls]).toEqual([
      true,
      ["words"],
      [],
    ]);
  });
  it.each<[string, () => boolean, boolean]>([
    ["it copies", () => true, true],
    ["it refuses", () => false, false],
    [
      "it throws",
      () => {
        throw new Error("no");
      },
      false,
    ],
  ])(
    "copies it with the old API if nothing else is allowed, and gives the focus back: %s",
    async (_, allowed, done) => {
      vi.stubGlobal("navigator", {});
      const seen: unknown[] = [];
      Object.assign(document, {
        execCommand: (what: string) => {
          const area = document.querySelector("textarea");
          seen.push(
            what,
            area?.value,
            area?.className,
            area?.parentElement === document.body,
            area && area.selectionEnd - area.selectionStart,
          );
          return allowed();
        },
      });
      const button = document.createElement("button");
      document.body.append(button);
      button.focus();
      expect(await copy(Promise.resolve("words"), document.body)).toBe(done);
      expect(seen).toEqual(["copy", "words", "rs-off-screen", true, 5]);
      expect([document.querySelector("textarea"), document.activeElement]).toEqual([null, button]);
    },
  );
  it("reports a failure of the text itself", async () => {
    vi.stubGlobal("navigator", {});
    await expect(copy(Promise.reject(new Error("refused")), document.body)).rejects.toThrow("refused");
    vi.stubGlobal("ClipboardItem", Item);
    vi.stubGlobal("navigator", {
      clipboard: { write: async ([item]: Item[]) => void (await item?.items["text/plain"]) },
    });
    await expect(copy(Promise.reject(new Error("refused")), document.body)).rejects.toThrow("refused");
  });
});

describe("pixels", () => {
  it.each([
    [72, 72, 600, 600],
    [72, 144, 600, 1200],
    [1, 1, 8, 8],
    [480, 480, 4000, 4000],
    [481, 480, 4004, 3995],
    [2000, 1500, 4618, 3464],
    [100_000, 1, 833_333, 8],
  ])("%i × %i points are %i × %i pixels", (width, height, wide, high) => {
    expect(pixelSize(width, height)).toEqual({ width: wide, height: high });
  });

  it("get a resolution in the PNG, which keeps its other chunks", () => {
    const data = Uint8Array.from({ length: 40 }, (_, i) => i);
    for (const dpi of [600, 72, 1]) {
      const made = withResolution(data, dpi);
      const view = new DataView(made.buffer);
      expect([made.length, [...made.subarray(0, 33)], [...made.subarray(54)]]).toEqual([
        61,
        [...data.subarray(0, 33)],
        [...data.subarray(33)],
      ]);
      expect([
        view.getUint32(33),
        String.fromCharCode(...made.subarray(37, 41)),
        view.getUint32(41),
        view.getUint32(45),
        made[49],
      ]).toEqual([9, "pHYs", Math.round(dpi / 0.0254), Math.round(dpi / 0.0254), 1]);
    }
  });

  const SVG = '<svg width="25.4mm" height="50.8mm" viewBox="0 0 72 144"><rect width="25mm" height="25mm"/></svg>';
  const browser = (pen: boolean, made: Blob | null) => {
    const seen: unknown[] = [];
    vi.stubGlobal(
      "Image",
      class {
        src = "";
        async decode(): Promise<void> {
          seen.push(decodeURIComponent(this.src));
        }
      },
    );
    vi.spyOn(HTMLCanvasElement.prototype, "getContext").mockImplementation(function (
      this: HTMLCanvasElement,
      kind: string,
    ) {
      seen.push(kind, this.width, this.height);
      return pen ? { drawImage: (...at: unknown[]) => void seen.push(at.slice(1)) } : null;
    } as unknown as HTMLCanvasElement["getContext"]);
    vi.spyOn(HTMLCanvasElement.prototype, "toBlob").mockImplementation((done, type) => {
      seen.push(type);
      done(made);
    });
    return seen;
  };
  it("are drawn at 600 per inch, for the whole figure, with no other change", async () => {
    const seen = browser(true, new Blob([new Uint8Array(40)], { type: "image/png" }));
    const blob = await png(SVG);
    expect(seen).toEqual([
      'data:image/svg+xml;charset=utf-8,<svg width="600" height="1200" viewBox="0 0 72 144"><rect ' +
        'width="25mm" height="25mm"/></svg>',
      "2d",
      600,
      1200,
      [0, 0, 600, 1200],
      "image/png",
    ]);
    const bytes = new DataView(await blob.arrayBuffer());
    expect([blob.type, bytes.byteLength, bytes.getUint32(41)]).toEqual(["image/png", 61, Math.round(600 / 0.0254)]);
  });
  it("have a lower resolution in the PNG, if 600 per inch would be too many", async () => {
    browser(true, new Blob([new Uint8Array(40)], { type: "image/png" }));
    const bytes = new DataView(await (await png(SVG.replace("0 0 72 144", "0 0 2000 1500"))).arrayBuffer());
    expect(bytes.getUint32(41)).toBe(Math.round(4618 / (2000 / 72) / 0.0254));
  });
  it("are refused with a sentence that names an alternative", async () => {
    browser(false, null);
    await expect(png(SVG)).rejects.toThrow("This browser cannot draw on a canvas. Save the figure as SVG instead.");
    browser(true, null);
    await expect(png(SVG)).rejects.toThrow("The picture is too large for this browser. Save it as SVG instead.");
  });
});

it("a picture is read from the view that offers it, for each store, and the last offer counts", () => {
  const [store, other] = [new Store(), new Store()];
  const picture = exported({ picture: "prompts", head: null, quantity: "logit", mean: 0, std: 0, rows: [] });
  expect(offered(store, "prompts")).toBeNull();
  offer(store, "prompts", () => picture);
  offer(store, "positions", () => null);
  expect([
    offered(store, "prompts"),
    offered(store, "positions"),
    offered(store, "attention"),
    offered(other, "prompts"),
  ]).toEqual([picture, null, null, null]);
  offer(store, "prompts", () => null);
  expect(offered(store, "prompts")).toBeNull();
});

import { describe, expect, it, vi } from "vitest";
import { componentOf } from "../dev/component-table";
import type { Kernel } from "../dev/fake-model";
import { recordedKernel } from "../dev/recorded-kernel";
import { everything } from "../src/draw/plane";
import { csv, shortest } from "../src/export/csv";
import type { Setting } from "../src/export/pictures";
import { pixelSize, withResolution } from "../src/export/png";
import { fileName } from "../src/export/save";
import { fileParts } from "../src/export/shown-pictures";
import { cut } from "../src/export/svg/xml";
import { Store } from "../src/state/store";
import type { Contrast } from "../src/wire/protocol.gen";
import { all, key, open, SHAPE, text } from "./open";
import { figure, type Picture, tableOf } from "./pictures";

const HOSTILE = [
  "<img src=x onerror=alert(1)>",
  "]]><script>alert(1)</script>",
  "שלום\u202eעולם",
  "🙂👩‍👩‍👧",
  "a\nb\r\nc\td",
  "\u0000\u0001\u001b[31m\u007f\ufffe\ud800",
  "x".repeat(10_000),
  `e${"\u0301".repeat(10_000)}`,
  '=HYPERLINK("http://x")',
  "@x",
  "-1",
  "+1",
  " =1",
  "'=1",
  "'s",
  '"quoted", "twice"',
  "",
  "&amp;",
];
const each = (...sides: string[]): Contrast => {
  const [answer = [], distractor = []] = sides.map((text) => [{ id: text.charCodeAt(1), text }]);
  return { answer, distractor };
};
const POSITIONS = HOSTILE.length;
const numbers = (count: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => Math.sin(i * 1.7) * 10 ** -(i % 5));
const setting: Setting = {
  compared: null,
  cache: "cache",
  quantity: "mean logit difference",
  source: ["tiny", ...HOSTILE],
  target: HOSTILE[0] ?? "",
  place: HOSTILE[2] ?? "",
  tokens: HOSTILE.map((token) => ({ text: token, shown: token, mark: "" })),
  destination: 3,
  layers: 2,
  prompts: 4,
};
const labels = ["embed", "0_attn_out", "0_mlp_out", "1_attn_out", "1_mlp_out"];
const rows = labels.map((name, i) => ({
  name,
  component: componentOf(name),
  value: Math.fround(Math.cos(i)),
  std: Math.fround(0.1 * i),
}));
const pattern = numbers(POSITIONS ** 2).map(Math.abs);

const PICTURES: { picture: Picture; marks: [string, number]; lines: number }[] = [
  { picture: { picture: "lens", points: rows, norm: "frozen" }, marks: [".points > circle", 5], lines: 5 },
  { picture: { picture: "layers", rows }, marks: [".bars > rect", 5], lines: 5 },
  {
    picture: {
      picture: "heads",
      layers: 2,
      heads: 3,
      values: numbers(6),
      std: numbers(6),
      score: null,
      pinned: ["L1H2"],
    },
    marks: [".cells > rect", 6],
    lines: 6,
  },
  {
    picture: {
      picture: "heads",
      layers: 2,
      heads: 3,
      values: numbers(6),
      std: null,
      pinned: [],
      score: { name: "copying", meaning: HOSTILE[0] ?? "", low: -1, high: 1, values: numbers(6) },
    },
    marks: [".cells > rect", 6],
    lines: 6,
  },
  { picture: { picture: "ranking", of: "neurons", rows }, marks: [".bars > rect", 5], lines: 5 },
  {
    picture: {
      picture: "attention",
      weighting: "pattern",
      ownRange: false,
      pool: "peak",
      maps: ["L0H0", "L1H2"].map((name) => ({
        name,
        value: 1,
        ...everything(POSITIONS),
        step: 1,
        maps: { pattern, contribution: numbers(POSITIONS ** 2) },
        sourceContributions: numbers(POSITIONS),
      })),
    },
    marks: [".cells > rect", 2 * POSITIONS ** 2],
    lines: 2 * POSITIONS ** 2,
  },
  {
    picture: {
      picture: "positions",
      by: "layer",
      labels,
      positions: POSITIONS,
      values: numbers(5 * POSITIONS),
      own: numbers(POSITIONS),
      limit: 1,
    },
    marks: [".cells > rect", 5 * POSITIONS],
    lines: 6 * POSITIONS,
  },
  {
    picture: {
      picture: "token-lens",
      points: ["0_pre", "final_post"],
      start: 0,
      cells: [0, 1].map(() =>
        HOSTILE.map((token) => ({ tokens: [token, "b"], probabilities: [0.75, 0.125], answer: 0.5, rank: 1 })),
      ),
    },
    marks: [".cells > rect", 2 * POSITIONS],
    lines: 4 * POSITIONS,
  },
  {
    picture: {
      picture: "prompts",
      head: "L1H2",
      quantity: "logit difference",
      mean: 0.125,
      std: 0.375,
      rows: [
        { prompt: 1, value: 0.5 },
        { prompt: 0, value: -0.25 },
      ],
    },
    marks: [".bars > rect", 2],
    lines: 2,
  },
];

/** Parses CSV by the grammar of RFC 4180. */
function parsed(source: string): string[][] {
  const records: string[][] = [[]];
  for (const [, quoted, plain, end] of source.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n|$)/g)) {
    records.at(-1)?.push(quoted === undefined ? (plain ?? "") : quoted.replaceAll('""', '"'));
    if (end === "\r\n") records.push([]);
  }
  return records.slice(0, -1);
}
/** Removes the apostrophe, as csv.ts describes. */
const bare = (field: string): string => (/^'+\s*[=+\-@]/.test(field) ? field.slice(1) : field);

describe("CSV", () => {
  it.each(PICTURES)("of $picture.picture gives the data back, hostile tokens included", ({ picture, lines }) => {
    const { columns, rows: fields } = tableOf(picture, setting);
    const expected = [...fields];
    const [header, ...records] = parsed(csv(tableOf(picture, setting)).join(""));
    expect(header).toEqual(columns);
    expect(records).toHaveLength(lines);
    records.forEach((record, i) => {
      expect(record).toHaveLength(columns.length);
      record.forEach((field, column) => {
        const value = expected[i]?.[column];
        if (typeof value === "number") expect(Math.fround(Number(field))).toBe(value);
        else expect(bare(field)).toBe(value);
        if (typeof value === "string") expect(field).not.toMatch(/^\s*[=+\-@]/);
      });
    });
  });

  it("writes the shortest decimals that are the same float32, and nothing for unknown values", () => {
    expect([0.1, 1 / 3, 16777216, 1e-45, -0].map((v) => shortest(Math.fround(v)))).toEqual([
      "0.1",
      "0.33333334",
      "16777216",
      "1e-45",
      "0",
    ]);
    expect([shortest(NaN), shortest(-Infinity), shortest(0.1 + 0.2)]).toEqual(["", "-inf", "0.30000000000000004"]);
    for (const value of numbers(2000)) expect(Math.fround(Number(shortest(value)))).toBe(value);
  });
});

describe("figures", () => {
  it.each(PICTURES)(
    "of $picture.picture are well-formed, have a mark for each value, and hold hostile tokens as text only",
    ({ picture, marks: [selector, count] }) => {
      const source = figure(picture, setting);
      expect(source).not.toMatch(
        /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\ufffe\uffff]|[\ud800-\udbff](?![\udc00-\udfff])/,
      );
      expect(source.length).toBeLessThan(400_000);
      const svg = new DOMParser().parseFromString(source, "image/svg+xml").documentElement;
      expect(svg.tagName).toBe("svg");
      expect(svg.querySelectorAll(selector)).toHaveLength(count);
      const known = new Set([
        "svg",
        "title",
        "g",
        "rect",
        "text",
        "tspan",
        "line",
        "path",
        "circle",
        "defs",
        "linearGradient",
        "stop",
        "image",
      ]);
      expect([...svg.querySelectorAll("*")].map((node) => node.tagName).filter((name) => !known.has(name))).toEqual([]);
      expect(
        [...svg.querySelectorAll("*")]
          .flatMap((node) => [...node.attributes])
          .map(({ name }) => name)
          .filter((name) => /^on|href/.test(name)),
      ).toEqual([]);
      expect(source).not.toContain("NaN");
    },
  );

  it("show control characters as visible signs, and cut long texts", () => {
    expect(
      figure({ picture: "prompts", head: "a\u0000b", quantity: "logit", mean: NaN, std: NaN, rows: [] }, setting),
    ).toContain("a‹U+0000›b");
    expect([cut("x".repeat(10_000), 5), cut("日本語です", 6), cut("short", 10)]).toEqual([
      "xxxxx…",
      "日本語…",
      "short",
    ]);
  });
});

it("writes the resolution into a PNG", () => {
  const bytes = (hex: string): Uint8Array => Uint8Array.from(hex.match(/../g) ?? [], (byte) => parseInt(byte, 16));
  const [header, rest] = [
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55",
    "0000000a49444154789c63f80f0001010100b138f6140000000049454e44ae426082",
  ];
  const chunk = "000000097048597300005c4600005c460114944341"; // 23622 dots per metre, checksum by zlib
  expect(withResolution(bytes(header + rest), 600)).toEqual(bytes(header + chunk + rest));
});

it.each([
  [{ contrasts: [each(" Mary", " John")] }, null, 1, ["cache", "Mary-John", "prompt0"]],
  [{ contrasts: [each(" Mary", " John"), each(" John", " Mary")] }, 1, 2, ["cache", "John-Mary", "prompt1"]],
  [{ contrasts: [each(" Mary", " John"), each(" John", " Mary")] }, null, 2, ["cache", "own answers", "mean of 2"]],
  [{ contrasts: [each(" Mary")] }, 7, 9, ["cache", "Mary", "prompt7"]],
  [{ contrasts: [], direction: "d" }, 0, 2, ["cache", "d", "prompt0"]],
])("names files by cache, target and prompt: %j, prompt %s of %s", (target, prompt, prompts, parts) => {
  const store = new Store();
  store.facts.value = {
    kind: "describe",
    name: "cache",
    model: "",
    layers: 1,
    heads: 1,
    prompts,
    positions: 1,
    dtype: "",
    device: "",
    bytes: 0,
    missing: [],
    last: [],
    has_tokens: true,
  };
  [store.target.value, store.prompt.value] = [target, prompt];
  expect(fileParts(store)).toEqual(parts);
});

it("names files so that every file system takes them, and keeps pictures within 16 megapixels", () => {
  expect([fileName('runs["../clean"]', "heads"), fileName("../..", ""), fileName("кэш", "lens")]).toEqual([
    "runs-clean-heads",
    "residscope",
    "кэш-lens",
  ]);
  const long = fileName("字".repeat(99), "𝒳".repeat(99), "a".repeat(99), "heads");
  expect([long, new TextEncoder().encode(long).length < 250]).toEqual([
    `${"字".repeat(20)}-${"𝒳".repeat(15)}-${"a".repeat(60)}-heads`,
    true,
  ]);
  expect(pixelSize(72, 144)).toEqual({ width: 600, height: 1200 });
  const { width, height } = pixelSize(2000, 1500);
  expect(width * height).toBeLessThanOrEqual(16_000_000);
});

describe("the menu", () => {
  async function opened(kernel?: Kernel, traits = {}) {
    const saved: { name: string; blob: Blob }[] = [];
    let last: Blob | null = null;
    vi.spyOn(URL, "createObjectURL").mockImplementation((blob) => ((last = blob as Blob), "blob:x"));
    vi.spyOn(HTMLAnchorElement.prototype, "click").mockImplementation(function (this: HTMLAnchorElement) {
      if (last) saved.push({ name: this.download, blob: last });
    });
    const panel = await open({ heads: ["L1H1"], ...traits }, kernel);
    await panel.settled();
    const button = panel.root.querySelector<HTMLElement>(".rs-export");
    button?.click();
    const menu = panel.root.querySelector<HTMLElement>(".rs-export-menu");
    const press = (name: string): void => panel.root.querySelector<HTMLElement>(`[aria-label="${name}"]`)?.click();
    return { ...panel, saved, button, menu, press, said: () => text(menu?.querySelector(".rs-export-said")) };
  }

  it("lists what is visible, is used with arrow keys, and gives the focus back", async () => {
    const { button, menu, model } = await opened();
    expect(all(menu ?? document.body, '[role="rowheader"]').map(text)).toEqual([
      "Logit lens",
      "Layers",
      "Heads",
      "Top heads",
      "Attention L1H1",
    ]);
    expect(document.activeElement?.getAttribute("aria-label")).toBe("Logit lens: Code");
    for (const name of ["ArrowDown", "ArrowDown", "ArrowRight"]) key(document.activeElement, name);
    expect(document.activeElement?.getAttribute("aria-label")).toBe("Heads: CSV");
    key(document.activeElement, "End");
    expect(text(document.activeElement)).toBe("Stand-alone page (.html)");
    key(document.activeElement, "Escape");
    expect([menu?.hidden, button?.getAttribute("aria-expanded"), document.activeElement === button]).toEqual([
      true,
      "false",
      true,
    ]);
    expect(model.state.heads).toEqual(["L1H1"]); // the first Esc closes the menu only
  });

  it("saves numbers, figures and the page, and reports it", async () => {
    const { press, saved, menu, said, root } = await opened();
    press("Heads: CSV");
    await vi.waitFor(() => expect(said()).toBe("cache-Mary-John-prompt0-heads.csv given to the browser to save"));
    const records = parsed((await saved[0]?.blob.text()) ?? "");
    expect(records[0]).toEqual(["layer", "head", "value"]);
    const cells = all(root, '[role="grid"] .rs-cell').map((cell) =>
      cell.getAttribute("aria-label")?.split(" ").at(-1)?.replace("−", "-"),
    );
    records.slice(1).forEach(([layer, head, value], i) => {
      expect([Number(layer), Number(head)]).toEqual([Math.floor(i / SHAPE.heads), i % SHAPE.heads]);
      expect(Number(value)).toBeCloseTo(Number(cells[i]), 2);
    });
    press("Attention L1H1: SVG");
    await vi.waitFor(() => expect(said()).toBe("cache-Mary-John-prompt0-attention.svg given to the browser to save"));
    expect(await saved[1]?.blob.text()).toContain("to (destination)");
    menu?.querySelector<HTMLElement>(".rs-export-page")?.click();
    await vi.waitFor(() => expect(said()).toBe("residscope.html given to the browser to save"));
    expect(await saved[2]?.blob.text()).toContain("<!doctype html>");
  });

  it.each([
    ["positions", "Positions", ["component", "position", "token", "value"], 8 * SHAPE.positions, { prompt: 0 }],
    [
      "token-lens",
      "Token lens",
      ["point", "position", "token", "place", "predicted", "probability", "answer_probability", "answer_rank"],
      null,
      { prompt: 0 },
    ],
    ["prompts", "Prompts", ["prompt", "value"], SHAPE.prompts, { prompt: null, heads: [] }],
  ] as const)("takes what the tab %s shows", async (tab, title, columns, lines, traits) => {
    const { menu, press, saved, said } = await opened(undefined, { tab, ...traits });
    await vi.waitFor(() =>
      expect(
        all(menu ?? document.body, '[role="rowheader"]')
          .map(text)
          .at(-1),
      ).toBe(title),
    );
    press(`${title}: CSV`);
    await vi.waitFor(() =>
      expect(said()).toBe(
        `cache-Mary-John-${traits.prompt === null ? "mean-of-2" : "prompt0"}-${tab}.csv given to the browser to save`,
      ),
    );
    const [header, ...records] = parsed((await saved[0]?.blob.text()) ?? "");
    expect(header).toEqual(columns);
    if (lines === null) expect(records.length).toBeGreaterThan(0);
    else expect(records).toHaveLength(lines);
    press(`${title}: SVG`);
    await vi.waitFor(() =>
      expect(said()).toBe(
        `cache-Mary-John-${traits.prompt === null ? "mean-of-2" : "prompt0"}-${tab}.svg given to the browser to save`,
      ),
    );
  });

  it("copies code, or shows it if the clipboard may not be used", async () => {
    const { press, said, menu, model } = await opened();
    vi.stubGlobal("navigator", {});
    press("Heads: Code");
    await vi.waitFor(() => expect(menu?.querySelector("textarea")?.value).toContain("import residscope"));
    expect(said()).toContain("Copy the code by hand");
    expect(document.activeElement).toBe(menu?.querySelector("textarea"));
    expect(model.asked.at(-1)?.ask).toMatchObject({
      kind: "code",
      picture: "heads",
      shown: { heads: ["L1H1"], prompt: 0, position: "last" },
    });
    const write = vi.fn(async (items: ClipboardItem[]) => void (await items[0]?.getType("text/plain")));
    vi.stubGlobal(
      "ClipboardItem",
      class {
        constructor(readonly items: Record<string, Promise<Blob>>) {}
        getType(type: string): Promise<Blob> | undefined {
          return this.items[type];
        }
      },
    );
    vi.stubGlobal("navigator", { clipboard: { write } });
    press("Heads: Code");
    await vi.waitFor(() => expect(said()).toBe("Code copied: # heads …"));
    vi.unstubAllGlobals();
  });

  it("never saves values of an earlier selection under the caption of a new one", async () => {
    const honest = recordedKernel();
    const { root, press, said, saved, menu, model } = await opened((ask) =>
      "prompt" in ask && ask.prompt === 1 ? { failure: { code: "missing", message: "Keep hook_z." } } : honest(ask),
    );
    model.set("prompt", 1);
    press("Heads: SVG");
    await vi.waitFor(() => expect(said()).toContain("still computing"));
    await vi.waitFor(() => expect([all(menu ?? document.body, '[role="rowheader"]'), saved]).toEqual([[], []]));
    model.set("prompt", 0);
    await vi.waitFor(() =>
      expect([root.dataset["state"], root.hasAttribute("data-computing")]).toEqual(["ready", false]),
    );
    press("Heads: CSV");
    await vi.waitFor(() => expect(said()).toBe("cache-Mary-John-prompt0-heads.csv given to the browser to save"));
  });

  it("stops a page that takes long, and reports that there is none", async () => {
    const honest = recordedKernel();
    let rounds = 0;
    const { menu, said, saved, model } = await opened((ask) =>
      ask.kind === "page" && rounds++ < 500
        ? { reply: { kind: "working", done: 3, total: 9 }, buffers: [] }
        : honest(ask),
    );
    menu?.querySelector<HTMLElement>(".rs-export-page")?.click();
    await vi.waitFor(() => expect(said()).toContain("3 of 9"));
    menu?.querySelector<HTMLElement>(".rs-export-said button")?.click();
    await vi.waitFor(() => expect(said()).toBe("Stopped: no page was made."));
    expect(model.asked.filter(({ ask }) => ask.kind === "give-up")).toHaveLength(1);
    expect(saved).toEqual([]);
  });

  it("shows a refusal in the kernel's words", async () => {
    const honest = recordedKernel();
    const { press, said } = await opened((ask) =>
      ask.kind === "code" ? { failure: { code: "x", message: "This cannot be written as code." } } : honest(ask),
    );
    press("Layers: Code");
    await vi.waitFor(() => expect(said()).toBe("This cannot be written as code."));
  });
});

it("the figure of a mean over padded prompts has its notes, and does not say that rows sum to 1 if they do not", () => {
  const maps = (...pattern: number[]) => [
    {
      name: "L0H0",
      value: 1,
      ...everything(2),
      step: 1,
      maps: { pattern: Float32Array.from(pattern) },
      sourceContributions: null,
    },
  ];
  const picture = { picture: "attention", weighting: "pattern", ownRange: false, pool: "peak" } as const;
  const notes = ["2 of 3 prompts are padded."];
  const padded = figure({ ...picture, maps: maps(1, NaN, 0.5, 0.25), notes }, setting);
  expect(padded).toContain(notes[0]);
  expect(padded).not.toContain("sums to 1");
  const empty = figure({ ...picture, maps: maps(1, 0, NaN, NaN) }, setting);
  expect(empty).toContain("each destination’s row sums to 1");
});

it("a figure marks values beyond its colours, and shows where the colours end", () => {
  const picture = {
    picture: "positions",
    by: "layer",
    labels: labels.slice(0, 1),
    positions: 3,
    values: Float32Array.of(7.5, -4, NaN),
    own: numbers(3),
    limit: 4,
  } as const;
  const drawn = figure(picture, setting);
  expect(drawn.match(/<circle/g)).toHaveLength(1);
  expect(drawn).toContain("a dot: beyond the colours, which end at ±4.00");
  expect(drawn).toContain("≥ +4.00");
  expect(drawn).not.toContain("≤");
  expect(figure({ ...picture, limit: 7.5 }, setting)).not.toMatch(/<circle|beyond/);
});

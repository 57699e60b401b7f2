// The pictures on screen, their captions, and what the export menu does and reports.
import { afterEach, describe, expect, it, vi } from "vitest";
import { columnsOf, componentOf } from "../dev/component-table";
import { everything } from "../src/draw/plane";
import { exportPage, exportPicture, type Format, stopPage } from "../src/export/actions";
import { offer, type PictureName } from "../src/export/pictures";
import { saveWith } from "../src/export/save";
import { fileParts, settingOf, shownPictures } from "../src/export/shown-pictures";
import { holdOf } from "../src/state/held-scale";
import { RUN_AXES } from "../src/state/scatter";
import { NEURONS, SCORES, Store } from "../src/state/store";
import { nextToken, throughHead } from "../src/state/target";
import { mountHeader } from "../src/views/header/header";
import { Client } from "../src/wire/client";
import type { CacheFacts, Contrast, Question, Target } from "../src/wire/protocol.gen";
import { life } from "./lives";
import { attributionOf, factsOf, storeOf } from "./made";
import { text } from "./open";
import { exported, type Offers, picturesOf } from "./pictures";

const TOKENS = ["a", " b", "a"];
const shownIn = (store: Store) => shownPictures(store).map(({ title, picture }) => [title, picture] as const);
const titles = (store: Store): string[] => shownPictures(store).map(({ title }) => title);
const OFFERS: Offers = {
  attention: {
    picture: "attention",
    weighting: "pattern",
    ownRange: false,
    pool: "peak",
    maps: ["L0H0", "L1H1"].map((name) => ({
      name,
      value: 1,
      ...everything(1),
      step: 1,
      maps: { pattern: Float32Array.of(1) },
      sourceContributions: null,
    })),
  },
  positions: {
    picture: "positions",
    by: "head",
    labels: ["L0H1", "L1H0"],
    positions: 1,
    values: Float32Array.of(1, 2),
    own: Float32Array.of(1),
    limit: 2,
  },
  "token-lens": { picture: "token-lens", points: ["0_pre"], start: 0, cells: [[null]] },
  prompts: { picture: "prompts", head: "L1H1", quantity: "logit", mean: 0, std: 0, rows: [] },
  why: {
    picture: "why",
    columns: [{ title: "Query side", note: "", quantity: "score", total: 1, rows: [], all: [] }],
    pairs: null,
  },
  runs: { picture: "runs", axes: RUN_AXES, colouredBy: "value", heads: [], low: -1, high: 1, pinned: [] },
  segments: {
    picture: "segments",
    map: {
      head: "L1H1",
      meaning: "",
      notes: [],
      weighting: "pattern",
      segments: [
        { name: "a", start: 0, end: 2 },
        { name: "b", start: 2, end: 3 },
      ],
      values: Float32Array.of(1, NaN, 0.25, 0.75),
      later: Float32Array.of(0.25, NaN),
    },
  },
  features: { picture: "features", title: "StandardSAE of blocks.1.hook_resid_pre", sum: "", rows: [], all: [] },
};
const offering = <K extends keyof Offers>(store: Store, tab: K, picture: Offers[K] = OFFERS[tab]): void => {
  store.tab.value = tab;
  offer(store, tab, () => exported(picture));
};
/** A store in which heads, layers and lens are visible. */
function full(given: Partial<CacheFacts> = {}): Store {
  const store = storeOf(TOKENS, [], { ...given });
  store.headRows.value = attributionOf(
    [0.5, -3, NaN, 2, 99],
    { labels: ["L0H0", "L0H1", "L1H0", "L1H1", "embed"] },
    [1, 2, 3, 4, 5],
  );
  store.layerRows.value = attributionOf([0.5, 1], { labels: ["embed", "0_attn_out", "0_mlp_out"] });
  store.lens.value = attributionOf([1, -2], { labels: ["0_pre", "final_post"], constant: 0.25 }, [0.5]);
  return store;
}

describe("the pictures on screen", () => {
  it("are given as they are drawn, each with its spread", () => {
    const store = full();
    expect(shownIn(store)).toEqual([
      [
        "Logit lens",
        {
          picture: "lens",
          norm: "frozen",
          points: [
            { name: "0_pre", component: componentOf("0_pre"), value: 1.25, std: 0.5 },
            { name: "final_post", component: componentOf("final_post"), value: -1.75, std: null },
          ],
        },
      ],
      [
        "Layers",
        {
          picture: "layers",
          rows: [
            { name: "embed", component: componentOf("embed"), value: 0.5, std: null },
            { name: "0_attn_out", component: componentOf("0_attn_out"), value: 1, std: null },
            { name: "0_mlp_out", component: componentOf("0_mlp_out"), value: NaN, std: null },
          ],
        },
      ],
      [
        "Heads",
        {
          picture: "heads",
          layers: 2,
          heads: 2,
          values: Float32Array.of(0.5, -3, NaN, 2),
          std: Float32Array.of(1, 2, 3, 4),
          score: null,
          pinned: [],
          empty: ["no attention in this layer"],
          limit: 3,
        },
      ],
      [
        "Top heads",
        {
          picture: "ranking",
          of: "heads",
          rows: [
            { name: "L1H1", value: 2, std: 4 },
            { name: "L0H0", value: 0.5, std: 1 },
            { name: "L0H1", value: -3, std: 2 },
          ],
        },
      ],
    ]);
    [store.topK.value, store.heads.value, store.norm.value] = [1, ["L1H1"], "recomputed"];
    store.headRows.value = attributionOf([0.5, -3, 1, 2]);
    expect(shownIn(store).slice(2)).toEqual([
      ["Heads", expect.objectContaining({ std: null, pinned: ["L1H1"] })],
      [
        "Top heads",
        {
          picture: "ranking",
          of: "heads",
          rows: [
            { name: "L1H1", value: 2, std: null },
            { name: "L0H1", value: -3, std: null },
          ],
        },
      ],
    ]);
    expect(shownIn(store)[0]?.[1]).toMatchObject({ norm: "recomputed" });
    holdOf(store, "heads").toggle();
    expect(shownIn(store)[2]?.[1]).toMatchObject({ limit: 3 });
    store.headRows.value = attributionOf([9, 0, 0, 0]);
    expect(shownIn(store)[2]?.[1]).toMatchObject({ limit: 3 }); // held
  });

  it.each<[string, (store: Store) => void, string[]]>([
    ["nothing refused", () => undefined, ["Logit lens", "Layers", "Heads", "Top heads"]],
    ["no facts", (store) => (store.facts.value = null), []],
    ["lens refused", (store) => (store.problems.value = new Map([["lens", "x"]])), ["Layers", "Heads", "Top heads"]],
    [
      "layers refused",
      (store) => (store.problems.value = new Map([["layers", "x"]])),
      ["Logit lens", "Heads", "Top heads"],
    ],
    ["heads refused", (store) => (store.problems.value = new Map([["heads", "x"]])), ["Logit lens", "Layers"]],
    [
      "another request refused",
      (store) => (store.problems.value = new Map([["tokens", "x"]])),
      ["Logit lens", "Layers", "Heads", "Top heads"],
    ],
    [
      "heads that come with a refusal",
      (store) => (store.headRows.value = attributionOf([1], { refusal: "none" })),
      ["Logit lens", "Layers"],
    ],
    [
      "neurons that are not loaded yet",
      (store) => (store.ranking.value = "neurons"),
      ["Logit lens", "Layers", "Heads"],
    ],
    [
      "nothing loaded",
      (store) => ([store.lens.value, store.layerRows.value, store.headRows.value] = [null, null, null]),
      [],
    ],
  ])("are those that were not refused: %s", (_, change, expected) => {
    const store = full();
    change(store);
    expect(titles(store)).toEqual(expected);
  });

  it("include the neurons if they are ranked, unless they were refused", () => {
    const store = full();
    store.ranking.value = "neurons";
    store.neurons.value = {
      reply: {
        kind: "neurons",
        components: columnsOf(["L0N1", "L1N7"]),
        count: 9,
        layers: 2,
        total: 0,
        bias: 0,
        notes: [],
      },
      values: Float32Array.of(2),
      layer: null,
    };
    expect(shownIn(store).at(-1)).toEqual([
      "Top neurons",
      {
        picture: "ranking",
        of: "neurons",
        rows: [
          { name: "L0N1", value: 2, std: null },
          { name: "L1N7", value: NaN, std: null },
        ],
      },
    ]);
    store.problems.value = new Map([[NEURONS, "x"]]);
    expect(titles(store).at(-1)).toBe("Heads");
  });

  it("include the heads with the score that colours them, and no other score", () => {
    const store = full();
    store.scores.value = {
      reply: { kind: "scores", score: "copying", meaning: "m", low: -1, high: 1, notes: [] },
      values: Float32Array.of(1, 2, 3, 4),
    };
    const score = () => picturesOf(store).flatMap((picture) => (picture.picture === "heads" ? [picture.score] : []))[0];
    expect(score()).toBeNull();
    store.score.value = "copying";
    expect(score()).toMatchObject({
      name: "copying",
      meaning: "m",
      low: -1,
      high: 1,
      values: Float32Array.of(1, 2, 3, 4),
    });
    store.problems.value = new Map([[SCORES, "x"]]);
    expect(score()).toBeNull();
    [store.problems.value, store.score.value] = [new Map(), "first"];
    expect(score()).toBeNull();
  });

  it.each<[keyof Offers, number, string]>([
    ["attention", 2, "Attention L0H0, L1H1"],
    ["attention", 3, "Attention L0H0, L1H1, L2H2"],
    ["attention", 4, "Attention"],
    ["attention", 0, "Attention "],
    ["positions", 0, "Positions"],
    ["token-lens", 0, "Token lens"],
    ["prompts", 0, "Prompts"],
  ])("include what the tab %s shows, with %i heads: %s", (tab, count, title) => {
    const store = storeOf(TOKENS);
    const [map] = OFFERS.attention.maps;
    if (tab === "attention" && map)
      offering(store, tab, {
        ...OFFERS.attention,
        maps: Array.from({ length: count }, (_, i) => ({ ...map, name: `L${i}H${i}` })),
      });
    else offering(store, tab);
    expect(titles(store)).toEqual([title]);
    store.tab.value = tab === "prompts" ? "positions" : "prompts"; // another tab, which shows nothing
    expect(titles(store)).toEqual([]);
  });
});

const contrast = (answer: string[], distractor: string[] = []): Contrast => {
  const tokens = (texts: string[]) => texts.map((text) => ({ id: text.charCodeAt(1) + text.length, text }));
  return { answer: tokens(answer), distractor: tokens(distractor) };
};

describe("a caption", () => {
  it.each<
    [
      string,
      Partial<CacheFacts> | null,
      number | null,
      number | null,
      ReturnType<typeof settingOf> extends infer S ? Partial<S> : never,
    ]
  >([
    [
      "one prompt",
      {},
      null,
      null,
      {
        cache: "cache",
        source: ["m"],
        place: "at “a₂” (position 2)",
        destination: 2,
        layers: 2,
        prompts: 1,
        quantity: "logit difference",
        target: "“·Mary” minus “·John”",
      },
    ],
    ["the first position", { model: "" }, null, 0, { source: [], place: "at “a₀” (position 0)", destination: 0 }],
    [
      "the mean",
      { prompts: 3, last: [2, 2, 2] },
      null,
      null,
      {
        source: ["m", "mean of 3 prompts"],
        prompts: 3,
        quantity: "mean logit difference",
        place: "at “a₂” (position 2)",
      },
    ],
    [
      "the mean over prompts that end at different positions",
      { prompts: 2, last: [2, 1] },
      null,
      null,
      { source: ["m", "mean of 2 prompts"], place: "at each prompt’s last token", destination: null },
    ],
    [
      "the first of several prompts",
      { prompts: 2, last: [2, 1] },
      0,
      null,
      { source: ["m", "prompt 0"], prompts: 1, place: "at “a₂” (position 2)" },
    ],
    [
      "the second prompt",
      { prompts: 2, last: [2, 1] },
      1,
      null,
      { source: ["m", "prompt 1"], place: "at “·b” (position 1)" },
    ],
    [
      "no facts",
      null,
      null,
      null,
      { cache: "cache", source: [], layers: 0, prompts: 1, place: "at each prompt’s last token" },
    ],
    ["an odd name of a model", { model: "a\u202eb" }, null, null, { source: ["a‹U+202E›b"] }],
  ])("names the source: %s", (_, facts, prompt, position, expected) => {
    const store = storeOf(TOKENS, [], facts ?? {});
    if (facts === null) store.facts.value = null;
    [store.prompt.value, store.position.value] = [prompt, position ?? "last"];
    expect(settingOf(store)).toMatchObject(expected);
    expect(settingOf(store).tokens).toEqual([
      { text: "a", shown: "a", mark: "₀" },
      { text: " b", shown: "·b", mark: "" },
      { text: "a", shown: "a", mark: "₂" },
    ]);
  });

  it.each([
    ["the next token", nextToken()],
    ["the next token, through a head", throughHead(nextToken(), { layer: 1, head: 0, source: null })],
  ])("has the position before the last token for %s, as the header", (_, target) => {
    const store = storeOf(TOKENS, [], { prompts: 2, last: [2, 1] });
    [store.target.value, store.prompt.value] = [target, null];
    const header = document.createElement("div");
    const end = life();
    const client = new Client({ send: () => undefined, onMessage: () => undefined }, end.signal);
    mountHeader(header, store, client, end.signal);
    expect(settingOf(store).place).toBe("at the token before each prompt’s last");
    expect(text(header.querySelector(".rs-at"))).toBe(settingOf(store).place);
  });

  it.each([
    ["runs", "", "runs"],
    ["runs", "x", "x"],
    ["", "", "cache"],
    ["", "x", "x"],
  ])("has the cache's name: %j in the facts, %j as the variable: %s", (name, called, expected) => {
    const store = storeOf(TOKENS, [], { name });
    store.cacheName.value = called;
    expect([settingOf(store).cache, fileParts(store)[0]]).toEqual([expected, expected]);
    store.facts.value = null;
    expect([settingOf(store).cache, fileParts(store)]).toEqual([
      called || "cache",
      [called || "cache", "Mary-John", "prompt0"],
    ]);
  });

  it.each<[string, Target, number | null, string, string]>([
    ["two tokens", { contrasts: [contrast([" Mary"], [" John"])] }, null, "“·Mary” minus “·John”", "Mary-John"],
    ["one token", { contrasts: [contrast([" Mary"])] }, null, "“·Mary”", "Mary"],
    [
      "several tokens on each side",
      { contrasts: [contrast([" Mary", " Jo"], [" A", " B"])] },
      null,
      "“·Mary, ·Jo” minus “·A, ·B”",
      "Mary-Jo-A-B",
    ],
    ["only a distractor", { contrasts: [contrast([], [" John"])] }, null, "nothing minus “·John”", "John"],
    ["no target", { contrasts: [] }, null, "nothing", ""],
    [
      "each prompt's own tokens",
      { contrasts: [contrast([" Mary"], [" John"]), contrast([" John"], [" Mary"])] },
      null,
      "each prompt’s own answer",
      "own answers",
    ],
    [
      "one prompt's own tokens",
      { contrasts: [contrast([" Mary"], [" John"]), contrast([" John"], [" Mary"])] },
      1,
      "“·John” minus “·Mary”",
      "John-Mary",
    ],
    [
      "prompts in which only the answer differs",
      { contrasts: [contrast([" Mary"], [" Jo"]), contrast([" John"], [" Jo"])] },
      null,
      "each prompt’s own answer",
      "own answers",
    ],
    [
      "prompts in which only the distractor differs",
      { contrasts: [contrast([" Jo"], [" Mary"]), contrast([" Jo"], [" John"])] },
      null,
      "each prompt’s own answer",
      "own answers",
    ],
    ["a direction", { contrasts: [], direction: "d 1" }, null, "direction “d·1”", "d 1"],
  ])("names what is attributed: %s", (_, target, prompt, words, part) => {
    const store = storeOf(TOKENS, [], { prompts: 2, last: [2, 2] });
    [store.target.value, store.prompt.value] = [target, prompt];
    expect([settingOf(store).target, fileParts(store)]).toEqual([
      words,
      ["cache", part, prompt === null ? "mean of 2" : `prompt${prompt}`],
    ]);
  });
});

/** The panel's client over a kernel whose answers the test chooses, and what the browser received. */
function taking(store: Store) {
  const asked: Question[] = [];
  const saved: { name: string; blob: Blob }[] = [];
  let deliver: (message: unknown, buffers: DataView[]) => void = () => undefined;
  const client = new Client(
    { send: (question) => asked.push(question), onMessage: (listener) => (deliver = listener) },
    life().signal,
  );
  let last: Blob | null = null;
  vi.spyOn(URL, "createObjectURL").mockImplementation((blob) => ((last = blob as Blob), "blob:x"));
  vi.spyOn(HTMLAnchorElement.prototype, "click").mockImplementation(function (this: HTMLAnchorElement) {
    if (last) saved.push({ name: this.download, blob: last });
  });
  const answer = (reply: object, buffers: DataView[] = []): void => deliver({ id: asked.at(-1)?.id, reply }, buffers);
  return {
    asked,
    saved,
    answer,
    client,
    take: (format: Format, what: PictureName) => exportPicture(format, what, store, client, document.body),
    page: () => exportPage(store, client, document.body),
  };
}

describe("the menu", () => {
  afterEach(() => {
    saveWith(null);
    vi.restoreAllMocks();
    vi.unstubAllGlobals();
    delete document.body.dataset["vscodeThemeKind"];
    document.body.replaceChildren();
  });

  it.each<["csv" | "svg", string, string]>([
    ["csv", "text/csv;charset=utf-8", "component,value\r\nembed,0.5\r\n0_attn_out,1\r\n0_mlp_out,\r\n"],
    ["svg", "image/svg+xml", "<svg"],
  ])("gives the browser a %s file, of its kind, and reports it", async (format, type, content) => {
    const { take, saved } = taking(full());
    expect(await take(format, "layers")).toEqual({
      message: `cache-Mary-John-prompt0-layers.${format} given to the browser to save`,
    });
    expect([saved.map(({ name }) => name), saved[0]?.blob.type]).toEqual([
      [`cache-Mary-John-prompt0-layers.${format}`],
      type,
    ]);
    const text = (await saved[0]?.blob.text()) ?? "";
    if (format === "csv") expect(text).toBe(content);
    else expect(text).toContain(content);
  });
  it("draws a PNG of the same figure", async () => {
    vi.stubGlobal(
      "Image",
      class {
        async decode(): Promise<void> {
          throw new Error("drawn");
        }
      },
    );
    await expect(taking(full()).take("png", "layers")).rejects.toThrow("drawn");
  });
  it("reports in VS Code that VS Code has the file", async () => {
    document.body.dataset["vscodeThemeKind"] = "vscode-dark";
    expect(await taking(full()).take("csv", "lens")).toEqual({
      message: "cache-Mary-John-prompt0-lens.csv given to VS Code to save",
    });
  });
  it("reports what a host that saves files itself did", async () => {
    for (const [done, message] of [
      [true, "cache-Mary-John-prompt0-layers.csv saved"],
      [false, "cache-Mary-John-prompt0-layers.csv was not saved"],
    ] as const) {
      saveWith(async () => done);
      expect(await taking(full()).take("csv", "layers")).toEqual({ message });
    }
  });

  it.each(["computing", "computingNeurons", "computingScores"] as const)(
    "exports code, but no file, while the store counts a request as %s",
    async (name) => {
      const store = full();
      store[name].value = 1;
      const { take, saved, asked } = taking(store);
      await expect(take("csv", "layers")).rejects.toThrow(
        "The kernel is still computing the selected picture. Export it when it is drawn.",
      );
      void take("code", "layers").catch(() => undefined);
      expect([saved, asked.length]).toEqual([[], 1]);
    },
  );
  it("exports no picture that is not on screen", async () => {
    await expect(taking(full()).take("svg", "positions")).rejects.toThrow(
      "This picture is not drawn yet, or is no longer drawn.",
    );
  });

  it.each<[string, PictureName, (store: Store) => void, string[]]>([
    ["the pinned heads", "layers", () => undefined, ["L0H0"]],
    ["of the head map, the pinned heads", "heads", () => undefined, ["L0H0"]],
    ["of attention, those that are shown", "attention", (store) => offering(store, "attention"), ["L0H0", "L1H1"]],
    [
      "of several heads combined, all of them",
      "attention",
      (store) =>
        offering(store, "attention", {
          ...OFFERS.attention,
          maps: OFFERS.attention.maps.map((map) => ({ ...map, of: ["L0H1", "L1H0"] })).slice(0, 1),
        }),
      ["L0H1", "L1H0"],
    ],
    ["of positions by head, the rows", "positions", (store) => offering(store, "positions"), ["L0H1", "L1H0"]],
    [
      "of positions by layer, the pinned heads",
      "positions",
      (store) => offering(store, "positions", { ...OFFERS.positions, by: "layer" }),
      ["L0H0"],
    ],
    ["of prompts, the head that is shown", "prompts", (store) => offering(store, "prompts"), ["L1H1"]],
    [
      "of prompts without a head, none",
      "prompts",
      (store) => offering(store, "prompts", { ...OFFERS.prompts, head: null }),
      [],
    ],
    ["of a picture that is not on screen, the pinned heads", "prompts", () => undefined, ["L0H0"]],
  ])("asks for code with the heads of the picture: %s", async (_, picture, change, heads) => {
    const store = full();
    store.heads.value = ["L0H0"];
    change(store);
    const { take, asked, answer } = taking(store);
    vi.stubGlobal("navigator", {});
    const done = take("code", picture);
    expect(asked.map(({ ask }) => ask)).toEqual([
      {
        kind: "code",
        picture,
        shown: expect.objectContaining({ heads, prompt: null, position: "last", norm: "frozen" }),
      },
    ]);
    answer({ kind: "code", code: "x = 1" });
    expect(await done).toEqual({
      message: "The browser does not let this page use the clipboard. Copy the code by hand:",
      byHand: "x = 1",
    });
  });

  it.each([
    ["import a\n# b\nx = 1\ny = 2\n", "Code copied: x = 1 …"],
    ["x = 1", "Code copied: x = 1"],
    ["\nx = 1\n", "Code copied: x = 1"],
    ["import a\n# b", "Code copied: import a …"],
    ["import a", "Code copied: import a"],
    ["# a\n  y\nx = 1", "Code copied: x = 1 …"],
    [`x = ${"1".repeat(80)}`, `Code copied: x = ${"1".repeat(56)}…`],
    ["for x in y:\n  z", "Code copied: for x in y: …"],
    ["", "Code copied: "],
    ["a = 1\nimportant = 2", "Code copied: a = 1 …"],
    ["# import\nb", "Code copied: b …"],
  ])("shows which code it copied: %j", async (code, message) => {
    const { take, answer } = taking(full());
    const written: string[] = [];
    vi.stubGlobal("navigator", { clipboard: { writeText: async (words: string) => void written.push(words) } });
    const done = take("code", "layers");
    answer({ kind: "code", code });
    expect([await done, written]).toEqual([{ message }, [code]]);
  });

  it.each([
    ["probe.html", "probe.html"],
    ["probe.HTM", "probe.html"],
    ["my page", "my-page.html"],
    ["a.html.html", "a-html.html"],
    ["html", "html.html"],
    ["", "residscope.html"],
    ["..", "residscope.html"],
    ["x".repeat(300), `${"x".repeat(200)}.html`],
    ["a.htmlx", "a-htmlx.html"],
  ])("names the page %j: %s", async (name, file) => {
    const { page, answer, saved, asked } = taking(full());
    const done = page();
    expect(asked.map(({ ask }) => ask.kind)).toEqual(["page"]);
    const bytes = new TextEncoder().encode("..<p>é</p>..");
    answer({ kind: "page", name }, [new DataView(bytes.buffer as ArrayBuffer, 2, bytes.length - 4)]);
    expect(await done).toEqual({ message: `${file} given to the browser to save` });
    expect([saved[0]?.name, saved[0]?.blob.type, await saved[0]?.blob.text()]).toEqual([file, "text/html", "<p>é</p>"]);
  });
  it("reports that the kernel sent no page, and that a page was stopped", async () => {
    const { page, answer, client, saved } = taking(full());
    const none = page();
    answer({ kind: "page", name: "x" });
    await expect(none).rejects.toThrow("The kernel sent no page.");
    const stopped = page();
    answer({ kind: "working", done: 1, total: 2 });
    stopPage(client);
    expect([await stopped, saved]).toEqual([{ message: "Stopped: no page was made." }, []]);
  });
});

it("a caption names only the model if there are no tokens and no target", () => {
  const store = new Store();
  store.facts.value = factsOf({ prompts: 1, last: [] });
  expect(settingOf(store)).toMatchObject({ tokens: [], destination: null, target: "nothing", source: ["m"] });
});

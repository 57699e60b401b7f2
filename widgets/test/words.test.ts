// The sentences about the item under the pointer, word for word.
import { describe, expect, it } from "vitest";
import { columnsOf, componentOf } from "../dev/component-table";
import { everything } from "../src/draw/plane";
import type { MapPicture } from "../src/state/map-picture";
import type { Reading } from "../src/state/reading";
import type { Store, Weighting } from "../src/state/store";
import { fitWords } from "../src/ui/fit-words";
import type { Attention, Direction, Pane } from "../src/views/attention/attention-data";
import {
  cellNumbers,
  cellSentence,
  contributionAt,
  lineIn,
  lineOf,
  lineParts,
  lineWords,
  ownDestination,
  paneAt,
  poolWords,
  strongest,
  unmasked,
} from "../src/views/attention/attention-words";
import { brief, constantWords, explanation, lackingIn, missingWords, whoseOf } from "../src/views/header/badge-words";
import { positionSentence } from "../src/views/positions/position-words";
import { headClauses, sourceSentence, tallest, attention as weightWords } from "../src/views/strip/reading-words";
import {
  answerName,
  answerWords,
  hasRank,
  cellSentence as lensSentence,
  probability,
} from "../src/views/token-lens/lens-words";
import type { LensCell, PositionsReply, Target, Token } from "../src/wire/protocol.gen";
import { attributionOf, flat, storeOf } from "./made";

const TOKENS = ["<bos>", " Mary", " to"];
const PATTERN = Float32Array.of(1, 0, 0, 0.25, 0.75, 0, 0.125, 0.79, 0.085);
const attentionOf = (given: Partial<Attention> = {}): Attention => ({
  ...everything(3),
  step: 1,
  size: 3,
  maps: { pattern: PATTERN, value: PATTERN.map((w) => 4 * w), contribution: PATTERN.map((w) => -w) },
  reads: null,
  sourceContributions: Float32Array.of(0.25, 1.93, -0.5),
  locked: null,
  notes: [],
  ...given,
});
const BARE = { maps: { pattern: PATTERN } };

describe("a cell of attention", () => {
  it.each<[string, Weighting, number, number, Partial<Attention>, string, string | null]>([
    [
      "the last row, the first source",
      "pattern",
      2,
      0,
      {},
      "L9H9: “·to” (destination 2) reads “<bos>” (source 0): attention 0.13, contributes *+0.25* to the logit " +
        "difference",
      "0.13, +0.25",
    ],
    [
      "the last row, the last source",
      "contribution",
      2,
      2,
      {},
      "L9H9: “·to” (destination 2) reads “·to” (source 2): attention 0.09, contributes *−0.50* to the logit difference",
      "0.09, −0.50",
    ],
    [
      "another row",
      "value",
      1,
      1,
      {},
      "L9H9: “·Mary” (destination 1) reads “·Mary” (source 1): attention 0.75, value-weighted 3.0, " +
        "contributes *−0.75* to the logit difference there",
      "0.75, 3.0, −0.75",
    ],
    [
      "the first of all",
      "pattern",
      0,
      0,
      {},
      "L9H9: “<bos>” (destination 0) reads “<bos>” (source 0): attention 1.00, contributes *−1.00* to the " +
        "logit difference there",
      "1.00, −1.00",
    ],
    [
      "just above the diagonal",
      "pattern",
      1,
      2,
      {},
      "L9H9: “·Mary” (destination 1) cannot see “·to” (source 2), which comes later",
      null,
    ],
    [
      "above the diagonal, and read",
      "pattern",
      0,
      2,
      { maps: { pattern: Float32Array.of(0.5, 0, 0.25) } },
      "L9H9: “<bos>” (destination 0) reads “·to” (source 2): attention 0.25",
      "0.25",
    ],
    [
      "no attention value",
      "pattern",
      1,
      0,
      { maps: {} },
      "L9H9: “·Mary” (destination 1) reads “<bos>” (source 0): attention not known",
      "not known",
    ],
    [
      "no attention value, above the diagonal",
      "pattern",
      0,
      1,
      { maps: {} },
      "L9H9: “<bos>” (destination 0) cannot see “·Mary” (source 1), which comes later",
      null,
    ],
    [
      "weighted by value, which is not there",
      "value",
      2,
      1,
      { ...BARE, sourceContributions: null },
      "L9H9: “·to” (destination 2) reads “·Mary” (source 1): attention 0.79",
      "0.79",
    ],
    [
      "no source contribution for this source",
      "pattern",
      2,
      2,
      { ...BARE, sourceContributions: Float32Array.of(1) },
      "L9H9: “·to” (destination 2) reads “·to” (source 2): attention 0.09",
      "0.09",
    ],
  ])("%s: %s, %i, %i", (_, weighting, q, k, given, words, figures) => {
    const [store, attention] = [storeOf(TOKENS), attentionOf(given)];
    expect(flat(cellSentence(store, attention, attention, weighting, "L9H9", q, k))).toBe(words);
    expect(cellNumbers(store, attention, attention, weighting, q, k)).toBe(figures);
  });

  it("is written with the decimals of the head that adds most", () => {
    const [store, attention] = [storeOf(TOKENS, [500, 0, 0, 0]), attentionOf()];
    expect(cellNumbers(store, attention, attention, "pattern", 2, 1)).toBe("0.79, +1.9");
    expect(flat(cellSentence(store, attention, attention, "pattern", "L9H9", 2, 1))).toContain("contributes *+1.9* to");
  });

  const POOLED: Pane = {
    rows: { start: 0, stop: 9 },
    columns: { start: 0, stop: 9 },
    step: 4,
    maps: {
      pattern: Float32Array.of(0.9, 0, 0, 0.5, 0.4, 0, 0.3, 0.2, 0.1),
      value: Float32Array.of(9, 0, 0, 5, 4, 0, 3, 2, 1),
      contribution: Float32Array.of(0.9, 0, 0, -0.5, 0.4, 0, 0.3, -0.2, 0.1),
    },
  };
  it.each<["peak" | "mean", Weighting, number, number, string]>([
    ["peak", "pattern", 0, 0, "L1H0: positions 0–3 read 0–3: strongest attention 0.90 · zoom in for single tokens"],
    ["mean", "pattern", 7, 3, "L1H0: positions 4–7 read 0–3: mean attention 0.50 · zoom in for single tokens"],
    [
      "peak",
      "value",
      4,
      4,
      "L1H0: positions 4–7 read 4–7: strongest value-weighted 4.0, attention 0.40 · zoom in for single tokens",
    ],
    [
      "peak",
      "contribution",
      5,
      0,
      "L1H0: positions 4–7 read 0–3: strongest contribution to the logit difference *−0.50* · zoom in for " +
        "single tokens",
    ],
    [
      "mean",
      "contribution",
      8,
      5,
      "L1H0: position 8 read 4–7: mean contribution to the logit difference *−0.20* · zoom in for single tokens",
    ],
    ["peak", "pattern", 8, 8, "L1H0: position 8 read 8: strongest attention 0.10 · zoom in for single tokens"],
    ["peak", "pattern", 3, 4, "L1H0: positions 0–3 cannot see 4–7, which come later"],
    ["peak", "contribution", 4, 8, "L1H0: positions 4–7 cannot see 8, which come later"],
  ])("of a long prompt is described as a block: %s, %s, %i, %i", (pool, weighting, q, k, words) => {
    const store = storeOf(Array.from({ length: 9 }, (_, i) => `t${i}`));
    store.pool.value = pool;
    expect(flat(cellSentence(store, attentionOf(), POOLED, weighting, "L1H0", q, k))).toBe(words);
  });
  it("describes a block above the diagonal that is read nevertheless, and a block on the diagonal", () => {
    const pane = (rows: Pane["rows"], columns: Pane["rows"], at: number): Pane => ({
      rows,
      columns,
      step: 4,
      maps: { pattern: Float32Array.of(at) },
    });
    const said = (pane: Pane): string =>
      flat(cellSentence(storeOf(TOKENS), attentionOf(), pane, "pattern", "L1H0", pane.rows.start, pane.columns.start));
    expect(said(pane({ start: 0, stop: 4 }, { start: 4, stop: 8 }, 0.25))).toBe(
      "L1H0: positions 0–3 read 4–7: strongest attention 0.25 · zoom in for single tokens",
    );
    expect(said(pane({ start: 0, stop: 4 }, { start: 3, stop: 7 }, 0))).toBe(
      "L1H0: positions 0–3 read 3–6: strongest attention 0.00 · zoom in for single tokens",
    );
  });

  it.each<[string, Partial<Attention>, Partial<Pane>, number | null, number, number, number | null]>([
    ["at the reply's destination, in float32", {}, {}, null, 2, 1, Math.fround(1.93)],
    ["at the reply's destination, from the last source", {}, {}, null, 2, 2, -0.5],
    ["at another destination, by the map", {}, {}, null, 1, 1, -0.75],
    ["at the reply's destination, although another one is selected", { locked: 1 }, {}, 0, 1, 0, 0.25],
    [
      "at the last position, which is not the reply's destination, by the map",
      { locked: 1 },
      {},
      0,
      2,
      1,
      -Math.fround(0.79),
    ],
    ["at the first position, which is the reply's destination", { locked: 0 }, {}, null, 0, 0, 0.25],
    ["nothing, if no value is known", { sourceContributions: null, maps: { pattern: PATTERN } }, {}, null, 2, 1, null],
    ["nothing from a source that does not exist", {}, {}, null, 2, 3, null],
    ["nothing in a block", {}, { step: 2 }, null, 1, 1, null],
    ["in a block, at the reply's destination", {}, { step: 2 }, null, 2, 1, Math.fround(1.93)],
    ["nothing outside the part", {}, { rows: { start: 0, stop: 1 } }, null, 1, 0, null],
  ])("contributes %s", (_, given, part, position, q, k, value) => {
    const [store, attention] = [storeOf(TOKENS), attentionOf(given)];
    store.position.value = position ?? "last";
    expect(contributionAt(attention, { ...attention, ...part }, store, q, k)).toBe(value);
    expect(ownDestination(attention, store)).toBe(given.locked ?? 2);
  });
});

describe("a line of attention", () => {
  const attention = attentionOf();
  it.each<[Direction, number, number[]]>([
    ["reads", 0, [1, 0, 0]],
    ["reads", 1, [0.25, 0.75, 0]],
    ["reads", 2, [0.125, 0.79, 0.085]],
    ["read-by", 0, [1, 0.25, 0.125]],
    ["read-by", 1, [0, 0.75, 0.79]],
    ["read-by", 2, [0, 0, 0.085]],
  ])("%s, token %i", (direction, token, expected) => {
    const line = lineIn(attention, direction, token);
    expect([line?.token, Object.keys(line?.maps ?? {})]).toEqual([token, ["pattern", "value", "contribution"]]);
    expect([...(line?.maps.pattern ?? [])]).toEqual(expected.map(Math.fround));
    expect([...(line?.maps.contribution ?? [])]).toEqual(expected.map((value) => -Math.fround(value)));
    const masked = expected.map((value, i) =>
      (direction === "reads" ? i > token : i < token) && value === 0 ? NaN : Math.fround(value),
    );
    expect([...lineOf(PATTERN, 3, direction, token)]).toEqual(masked);
    expect([...unmasked(Float32Array.from(expected), direction, token)]).toEqual(masked);
  });
  it("has only the maps that are there, and none if cells are blocks", () => {
    expect(Object.keys(lineIn(attentionOf(BARE), "reads", 1)?.maps ?? {})).toEqual(["pattern"]);
    expect(lineIn(attentionOf({ step: 2 }), "reads", 1)).toBeNull();
    // Values that are missing are NaN.
    expect([...lineOf(PATTERN, 4, "reads", 2)]).toEqual([Math.fround(0.085), NaN, NaN, NaN]);
  });

  it.each<[number[], number, number[]]>([
    [[], 3, []],
    [[0, 0], 3, []],
    [[NaN, 0, -0.1], 3, [2]],
    [[1, -3, 2], 3, [1, 2, 0]],
    [[1, -3, 2], 2, [1, 2]],
    [[1, -3, 2], 1, [1]],
    [[1, 1, 1], 2, [0, 1]],
    [[1, 2, 3, 4], 2, [3, 2]],
    [[4, 3, 2, 1], 2, [0, 1]],
    [[2, 1, 2], 3, [0, 2, 1]],
    [[1, 2], 9, [1, 0]],
  ])("%j: the strongest %i are at %j", (line, most, places) =>
    expect(strongest(Float32Array.from(line), most)).toEqual(places),
  );

  it.each<[Weighting, Direction, number, number[], number | undefined, string[]]>([
    [
      "pattern",
      "reads",
      2,
      [0.125, 0.79, 0.085],
      undefined,
      ["“·to” reads “·Mary” 0.79", ", “<bos>” 0.13", ", “·to” 0.09"],
    ],
    ["pattern", "reads", 2, [0.125, 0.79, 0.085], 1, ["“·to” reads “·Mary” 0.79"]],
    ["pattern", "read-by", 0, [1, 0.25, 0.125], 2, ["“<bos>” is read by “<bos>” 1.00", ", “·Mary” 0.25"]],
    ["value", "read-by", 1, [0, 3, 0], 3, ["“·Mary” is read by “·Mary” 3.0"]],
    ["contribution", "reads", 2, [0.5, -2, 0], 3, ["contributions at “·to”: “·Mary” −2.00", ", “<bos>” +0.50"]],
    ["contribution", "read-by", 1, [0, 0, -2], 3, ["“·Mary” contributes at “·to” −2.00"]],
    ["pattern", "reads", 0, [NaN, NaN, NaN], 3, ["“<bos>” reads nothing"]],
    ["contribution", "read-by", 0, [], 3, ["“<bos>” contributes at nothing"]],
  ])("in words: %s, %s, token %i", (weighting, direction, token, line, most, parts) => {
    const args = [
      storeOf(TOKENS),
      weighting,
      direction,
      token,
      Float32Array.from(line),
      ...(most === undefined ? [] : [most]),
    ] as Parameters<typeof lineParts>;
    expect([lineParts(...args), lineWords(...args)]).toEqual([parts, parts.join("")]);
  });
  it("names four values if four are requested, and three by default", () => {
    const line = Float32Array.of(0.4, 0.3, 0.2, 0.1);
    const store = storeOf(["a", "b", "c", "d"]);
    expect([
      lineParts(store, "pattern", "reads", 3, line).length,
      lineParts(store, "pattern", "reads", 3, line, 4).length,
    ]).toEqual([3, 4]);
  });

  it("is taken from the finest part that contains it", () => {
    const [coarse, fine]: [Pane, Pane] = [
      { ...everything(8), step: 4, maps: {} },
      { rows: { start: 4, stop: 8 }, columns: { start: 0, stop: 4 }, step: 1, maps: {} },
    ];
    expect(
      [
        [0, 0],
        [4, 0],
        [7, 3],
        [7, 4],
        [3, 3],
        [8, 0],
      ].map(([q = 0, k = 0]) => paneAt([coarse, fine], q, k)),
    ).toEqual([coarse, fine, fine, coarse, coarse, null]);
    expect(paneAt([], 0, 0)).toBeNull();
  });
  it.each([
    ["peak", 1, ""],
    ["peak", 2, "strongest of 2 × 2"],
    ["mean", 1, ""],
    ["mean", 8, "mean of 8 × 8"],
  ] as const)("%s of blocks of %i: “%s”", (pool, step, words) =>
    expect(poolWords(pool, attentionOf({ step }))).toBe(words),
  );
});

describe("the token lens", () => {
  it.each([
    [NaN, "not known"],
    [Infinity, "not known"],
    [0, "0"],
    [1, "1.00"],
    [0.43, "0.43"],
    [0.0995, "0.10"],
    [0.0994, "0.099"],
    [0.004, "0.004"],
    [0.00095, "0.001"],
    [0.00094, "9e-4"],
    [2e-5, "2e-5"],
  ])("a probability of %s: %s", (p, text) => expect(probability(p)).toBe(text));

  const token = (text: string): Token => ({ id: text.length, text });
  const contrast = (answer: string) => ({ answer: answer === "" ? [] : [token(answer)], distractor: [] });
  const cell: LensCell = { tokens: [" Tom", "b"], probabilities: [0.5, 0.25], answer: 0.43, rank: 2 };
  it.each<[string, Target, number | null, string | null, string]>([
    ["one answer", { contrasts: [contrast(" Mary")] }, null, "·Mary", "the answer “·Mary” 0.43, rank 2"],
    [
      "each prompt's, one in view",
      { contrasts: [contrast(" Mary"), contrast(" Jo")] },
      1,
      "·Jo",
      "the answer “·Jo” 0.43, rank 2",
    ],
    [
      "each prompt's, the first in view",
      { contrasts: [contrast(" Mary"), contrast(" Jo")] },
      0,
      "·Mary",
      "the answer “·Mary” 0.43, rank 2",
    ],
    [
      "each prompt's",
      { contrasts: [contrast(" Mary"), contrast(" Jo")] },
      null,
      "each prompt’s answer",
      "each prompt’s answer 0.43, rank 2",
    ],
    ["no answer", { contrasts: [contrast("")] }, null, null, ""],
    ["none chosen", { contrasts: [] }, null, null, ""],
    ["of a prompt that has none", { contrasts: [contrast(" Mary"), contrast(" Jo")] }, 2, null, ""],
    ["a direction", { contrasts: [contrast(" Mary")], direction: "d" }, null, null, ""],
  ])("names the answer: %s", (_, target, prompt, name, words) => {
    const store = storeOf(TOKENS);
    [store.target.value, store.prompt.value] = [target, prompt];
    expect([answerName(store), answerWords(store, cell)]).toEqual([name, words]);
  });
  it("has a rank only if both are known", () => {
    const known: [LensCell["answer"], LensCell["rank"]][] = [
      [0.5, 1],
      [0, 0],
      [null, 1],
      [0.5, null],
      [undefined, undefined],
    ];
    expect(
      known.map(([answer, rank]) =>
        hasRank({
          tokens: [],
          probabilities: [],
          ...(answer === undefined ? {} : { answer }),
          ...(rank === undefined ? {} : { rank }),
        }),
      ),
    ).toEqual([true, true, false, false, false]);
    const store = storeOf(TOKENS);
    expect(answerWords(store, { ...cell, rank: null })).toBe("");
  });
  it.each<[LensCell, string, number, string]>([
    [
      cell,
      "0_pre",
      0,
      "If the model stopped before the first layer (0_pre) at “<bos>” (position 0), it would predict “·Tom” 0.50; " +
        "the answer “·Mary” 0.43, rank 2",
    ],
    [
      { ...cell, answer: null, rank: null },
      "1_mid",
      2,
      "If the model stopped after layer 1’s attention (1_mid) at “·to” (position 2), it would predict “·Tom” 0.50",
    ],
    [
      { tokens: [], probabilities: [] },
      "final_post",
      2,
      "If the model stopped after the last layer (final_post) at “·to” (position 2), it would predict “∅” not known",
    ],
  ])("describes a cell: %j at %s, %i", (given, point, position, words) =>
    expect(flat(lensSentence(storeOf(TOKENS), given, componentOf(point), position))).toBe(words),
  );
});

describe("the position map", () => {
  const picture = (
    by: PositionsReply["by"] & ("layer" | "head" | "accumulated"),
    labels: string[],
    values: number[],
    own = [1, NaN, -2],
  ) => ({
    by,
    values: Float32Array.from(values),
    own: Float32Array.from(own),
    limit: 1,
    reply: { kind: "positions", by, components: columnsOf(labels), positions: 3, notes: [] } satisfies PositionsReply,
  });
  it.each<[string, number, number, string]>([
    ["layer", -1, 0, "The model’s own logit difference at “<bos>” (position 0): *+1.00*"],
    ["layer", -1, 1, "The model’s own logit difference at “·Mary” (position 1): *not known*"],
    ["layer", -1, 2, "The model’s own logit difference at “·to” (position 2): *−2.00*"],
    ["layer", 0, 0, "0_attn_out adds *+0.50* to the logit difference at “<bos>” (position 0)"],
    ["layer", 0, 2, "0_attn_out adds *−0.25* to the logit difference at “·to” (position 2)"],
    ["layer", 1, 0, "0_mlp_out adds *0.00* to the logit difference at “<bos>” (position 0)"],
    ["layer", 1, 1, "0_mlp_out: not known at “·Mary” (position 1)"],
    ["layer", 1, 2, "0_mlp_out adds *+3.00* to the logit difference at “·to” (position 2)"],
    [
      "accumulated",
      0,
      2,
      "The stream before the first layer (0_pre): *−0.25* of the logit difference at “·to” (position 2)",
    ],
    ["accumulated", 1, 1, "final_post: not known at “·Mary” (position 1)"],
    ["head", 1, 2, "L1H0 adds *+3.00* to the logit difference at “·to” (position 2)"],
    ["head", 2, 0, ": not known at “<bos>” (position 0)"],
  ])("by %s, row %i, column %i", (by, row, column, words) => {
    const labels =
      { layer: ["0_attn_out", "0_mlp_out"], accumulated: ["0_pre", "final_post"], head: ["L0H1", "L1H0"] }[by] ?? [];
    expect(
      flat(
        positionSentence(storeOf(TOKENS), picture(by as "layer", labels, [0.5, 1, -0.25, 0, NaN, 3]), { row, column }),
      ),
    ).toBe(words);
  });
  it("is written with the decimals of the head that adds most", () => {
    const store = storeOf(TOKENS, [500]);
    expect(
      [0, -1].map((row) => flat(positionSentence(store, picture("layer", ["embed"], [0.5, 1, 2]), { row, column: 0 }))),
    ).toEqual([
      "embed adds *+0.5* to the logit difference at “<bos>” (position 0)",
      "The model’s own logit difference at “<bos>” (position 0): *+1.0*",
    ]);
  });
  it("names what is attributed in the mean", () => {
    const store = storeOf(TOKENS, [], { prompts: 2, last: [2, 2] });
    expect(flat(positionSentence(store, picture("layer", ["embed"], [0.5, 1, 2]), { row: 0, column: 0 }))).toBe(
      "embed adds *+0.50* to the mean logit difference at “<bos>” (position 0)",
    );
  });
});

describe("the head in focus", () => {
  const FIVE = ["<bos>", " Mary", " John", " gave", " to"];
  const readingOf = (
    weights: number[],
    contributions: number[] | null = null,
    destination: number | null = 4,
  ): Reading => ({
    head: "L1H0",
    destination,
    weights: Float32Array.from(weights),
    contributions: contributions && Float32Array.from(contributions),
  });
  const clauses = (
    reading: Reading | null,
    name = "L1H0",
    store: Store = storeOf(FIVE, [0, 0, 1.5, -2]),
    picture: MapPicture | null = null,
  ): string[] => headClauses(store, name, reading, picture).map(flat);

  it.each<[string, Reading | null, string[]]>([
    ["nothing read yet", null, ["L1H0 adds *+1.50*"]],
    [
      "the strongest first",
      readingOf([0.1, 0.6, 0.3, 0, 0]),
      ["L1H0 adds *+1.50*", "reads ·Mary 0.60", "·John 0.30", "<bos> 0.10"],
    ],
    [
      "four at most",
      readingOf([0.1, 0.3, 0.25, 0.2, 0.15]),
      ["L1H0 adds *+1.50*", "reads ·Mary 0.30", "·John 0.25", "·gave 0.20", "·to 0.15"],
    ],
    [
      "sources with little attention are left out",
      readingOf([0.9, 0.0201, 0.0199, 0, 0]),
      ["L1H0 adds *+1.50*", "reads <bos> 0.90", "·Mary 0.02"],
    ],
    [
      "the strongest source is never left out",
      readingOf([0.01, 0.005, 0, 0, 0]),
      ["L1H0 adds *+1.50*", "reads <bos> 0.01"],
    ],
    ["no attention at all", readingOf([0, 0, 0, 0, 0]), ["L1H0 adds *+1.50*"]],
    [
      "at another destination",
      readingOf([0.4, 0.6, 0, 0, 0], null, 1),
      ["L1H0 adds *+1.50*", "at ·Mary reads ·Mary 0.60", "<bos> 0.40"],
    ],
    ["at the first position", readingOf([1, 0, 0, 0, 0], null, 0), ["L1H0 adds *+1.50*", "at <bos> reads <bos> 1.00"]],
    [
      "at each prompt's last position",
      readingOf([1, 0, 0, 0, 0], null, null),
      ["L1H0 adds *+1.50*", "reads <bos> 1.00"],
    ],
    [
      "with what each source adds",
      readingOf([0.1, 0.6, 0.3, 0, 0], [0, 1.83, -0.33, 0, 0]),
      ["L1H0 adds *+1.50*", "reads ·Mary 0.60, which adds *+1.83*", "·John 0.30 (*−0.33*)", "<bos> 0.10 (≈ 0)"],
    ],
    [
      "the source that contributes most is named second",
      readingOf([0.6, 0.3, 0.1, 0, 0], [0, 0.5, -3, 0, 0]),
      ["L1H0 adds *+1.50*", "reads <bos> 0.60, which adds ≈ 0", "·John 0.10 (*−3.00*)", "·Mary 0.30 (*+0.50*)"],
    ],
    [
      "the source that contributes most is named, even if it has no attention",
      readingOf([0.5, 0.3, 0.1, 0.1, 0], [0, 0, 0, 0, 2]),
      [
        "L1H0 adds *+1.50*",
        "reads <bos> 0.50, which adds ≈ 0",
        "·to 0.00 (*+2.00*)",
        "·Mary 0.30 (≈ 0)",
        "·John 0.10 (≈ 0)",
      ],
    ],
    [
      "nothing read, but contributed",
      readingOf([0, 0, 0, 0, 0], [0, 0, 2, 0, 0]),
      ["L1H0 adds *+1.50*", "reads ·John 0.00, which adds *+2.00*"],
    ],
    [
      "nothing contributed",
      readingOf([1, 0, 0, 0, 0], [0, 0, 0, 0, 0]),
      ["L1H0 adds *+1.50*", "reads <bos> 1.00, which adds ≈ 0"],
    ],
    ["contributions of no source", readingOf([1], []), ["L1H0 adds *+1.50*", "reads <bos> 1.00"]],
  ])("%s", (_, reading, expected) => expect(clauses(reading)).toEqual(expected));

  it("ignores another head's reading, no head, and a head without a value", () => {
    expect(clauses(readingOf([1, 0, 0, 0, 0]), "L1H1")).toEqual(["L1H1 adds *−2.00*"]);
    expect(clauses(null, "MLP")).toEqual([]);
    expect(clauses(null, "L1H0", storeOf(FIVE))).toEqual(["L1H0"]);
  });
  it("has its spread over prompts", () => {
    const store = storeOf(FIVE, [], { prompts: 2, last: [4, 4] });
    store.headRows.value = attributionOf([0, 0, 1.5, -2], { prompts: 2 }, [0, 0, 0.25, 1]);
    expect([clauses(null, "L1H0", store), clauses(null, "L1H1", store)]).toEqual([
      ["L1H0 adds *+1.50* ± 0.25"],
      ["L1H1 adds *−2.00* ± 1.00"],
    ]);
  });
  it("shows why it has no value", () => {
    const store = storeOf(FIVE, [0, 0, NaN, NaN]);
    expect(clauses(readingOf([1]), "L1H0", store)).toEqual(["L1H0: layer 1 has no attention heads"]);
    store.facts.value = {
      ...(store.facts.value as NonNullable<typeof store.facts.value>),
      missing: ["attn.hook_pattern"],
    };
    expect(clauses(null, "L1H1", store)).toEqual(["L1H1: its attention is not in this cache"]);
  });
  it.each<[string, number[], MapPicture["score"], string, string[]]>([
    [
      "has the words of its score",
      [0, 0, 0.87, 0],
      "previous",
      "`previous` score: How much attention goes to `the token` just before",
      ["L1H0 adds *+1.50*", "previous-token 0.87: how much attention goes to the token just before"],
    ],
    [
      "has a score that is not known",
      [0, 0, NaN, 0],
      "induction",
      "induction score: ",
      ["L1H0 adds *+1.50*", "induction not known"],
    ],
    ["has a score without an explanation", [0, 0, 0, 0], "first", "", ["L1H0 adds *+1.50*", "first-token 0.00"]],
    ["has no score", [0, 0, 0.87, 0], null, "Anything", ["L1H0 adds *+1.50*"]],
  ])("%s", (_, values, score, meaning, expected) => {
    const picture: MapPicture = {
      score,
      values: Float32Array.from(values),
      low: 0,
      high: 1,
      largest: 1,
      meaning: meaning.replace("`previous`", "previous-token"),
      feeds: null,
      runs: null,
      measured: null,
      pending: false,
    };
    expect(clauses(null, "L1H0", undefined, picture)).toEqual(expected);
  });

  it("shows a score although nothing is known of the cache yet", () => {
    const store = storeOf(FIVE);
    store.facts.value = null;
    expect(
      clauses(null, "L0H0", store, {
        score: "first",
        values: Float32Array.of(0.5),
        low: 0,
        high: 1,
        largest: 0.5,
        meaning: "",
        feeds: null,
        runs: null,
        measured: null,
        pending: false,
      }),
    ).toEqual(["L0H0", "first-token 0.50"]);
  });

  it.each<[string, number, Reading, string]>([
    [
      "the strongest",
      1,
      readingOf([0.1, 0.6, 0.3, 0, 0], [0, 1.83, -0.33, 0, 0]),
      "L1H0 at ·to reads ·Mary: attention 0.60, which adds *+1.83*",
    ],
    [
      "one that adds nothing",
      0,
      readingOf([0.1, 0.6, 0.3, 0, 0], [0, 1.83, -0.33, 0, 0]),
      "L1H0 at ·to reads <bos>: attention 0.10, which adds ≈ 0",
    ],
    ["one whose contribution is not known", 4, readingOf([0, 0, 0, 0, 0.5]), "L1H0 at ·to reads ·to: attention 0.50"],
    ["a source beyond the contributions", 1, readingOf([0, 0.5], [1]), "L1H0 at ·to reads ·Mary: attention 0.50"],
    [
      "one that comes later",
      2,
      readingOf([0.5, 0.5, 0, 0, 0], null, 1),
      "L1H0 at ·Mary cannot see ·John, which comes later",
    ],
    [
      "one that comes later, and is read",
      2,
      readingOf([0.5, 0.25, 0.25, 0, 0], null, 1),
      "L1H0 at ·Mary reads ·John: attention 0.25",
    ],
    ["itself", 1, readingOf([0.5, 0, 0, 0, 0], null, 1), "L1H0 at ·Mary reads ·Mary: attention 0.00"],
    [
      "of the first position",
      1,
      readingOf([1, 0, 0, 0, 0], null, 0),
      "L1H0 at <bos> cannot see ·Mary, which comes later",
    ],
    ["at each prompt's last position", 4, readingOf([0, 0, 0, 0, 0.5], null, null), "L1H0 reads ·to: attention 0.50"],
    ["one without a weight", 9, readingOf([1], null, null), "L1H0 reads 9: attention 0.00"],
    ["one whose weight is NaN", 1, readingOf([0.5, NaN, 0, 0, 0]), "L1H0 at ·to reads ·Mary: attention not known"],
  ])("a source: %s", (_, at, reading, words) =>
    expect(flat(sourceSentence(storeOf(FIVE, [0, 0, 1.5, -2]), reading, at))).toBe(words),
  );

  it("scales source contributions by the head's largest, but at least by a hundredth of the largest head", () => {
    const store = storeOf(FIVE, [200, 0, 0, 0]);
    const found = [null, [], [0.5, -3], [0.001]].map((values) => tallest(store, values && Float32Array.from(values)));
    expect(found).toEqual([0, 2, 3, 2]);
    expect([0, 0.5, 1, NaN].map(weightWords)).toEqual(["0.00", "0.50", "1.00", "not known"]);
    expect(flat(sourceSentence(store, readingOf([1, 0, 0, 0, 0], [0.001, 0, 0, 0, 0]), 0))).toBe(
      "L1H0 at ·to reads <bos>: attention 1.00, which adds ≈ 0",
    );
  });
});

describe("the badge", () => {
  it.each([
    [[], " missing"],
    [["MLPs"], "MLPs missing"],
    [["MLPs", "heads"], "MLPs and heads missing"],
    [["MLPs", "heads", "embeddings"], "MLPs, heads and embeddings missing"],
  ])("%j: “%s”", (kinds, words) => expect(missingWords(kinds)).toBe(words));
  it.each([
    [[], null],
    [["hook_scale"], null],
    [["hook_mlp_out", "hook_embed"], "MLPs and embeddings missing"],
    [["hook_attn_out"], "attention missing"],
    [["attn.hook_z", "x"], "heads missing"],
  ])("lacking %j: %s", (missing, words) => expect(lackingIn(missing)).toBe(words));

  it.each<[Parameters<typeof brief>, string]>([
    [["incomplete", 4.6, null, true, true, 4.6], "not complete"],
    [["contradicts", 4.6, 1, true, true, 4.6], "does not add up"],
    [["agrees", 4.6, null, true, true, 4.6], "was +4.60"],
    [["misses", -4.6, 1, true, true, 500], "was −4.6"],
    [["misses", 4.6, -0.35, true, false, 4.6], "misses −0.35"],
    [["misses", 4.6, 0.35, false, false, 500], "misses +0.3"],
    [["misses", 4.6, null, true, false, 4.6], "misses in a prompt"],
    [["agrees", 4.6, null, true, false, 4.6], "✓ adds up: +4.60"],
    [["agrees", -4.6, null, false, false, 4.6], "−4.60, not checked"],
    [["unmeasured", 4.6, null, true, false, 4.6], "+4.60, not checked"],
    [["agrees", 4.6, null, true, false, 500], "✓ adds up: +4.6"],
  ])("in brief: %j: %s", (given, words) => expect(brief(...given)).toBe(words));

  const said = (rows: number[], given: Parameters<typeof attributionOf>[1]): string =>
    explanation(attributionOf(rows, { constant: 0.5, ...given }), whoseOf(null, "logit difference"), "float32");
  it.each<[string, number[], Parameters<typeof attributionOf>[1], string]>([
    [
      "rows that were not cached, and a measured value",
      [1],
      { missing: ["MLPs"], measured: 4.6156 },
      "The rows are not complete: MLPs missing. Each row is exact, but their sum is not the logit difference. " +
        "The model’s logit difference, read from the given logits, is +4.616.",
    ],
    [
      "rows that were not cached, and no measured value",
      [1],
      { missing: ["MLPs", "heads"], measured_from: "nothing: the cache holds no logits" },
      "The rows are not complete: MLPs and heads missing. Each row is exact, but their sum is not the logit " +
        "difference. The model’s logit difference is not known: the cache holds no logits.",
    ],
    [
      "nothing measured, and no reason",
      [1],
      { measured_from: "" },
      "The rows and the constant add up to +1.500. Whether that is the model’s own logit difference is not " +
        "known: pass `logits=`.",
    ],
    [
      "nothing measured in the mean, and the reason",
      [1],
      { prompts: 2, measured_from: "nothing: why" },
      "The rows and the constant, in the mean over 2 prompts, add up to +1.500. Whether that is the model’s " +
        "own logit difference is not known: why.",
    ],
    [
      "a measured value that the cache gives",
      [1],
      { own: false, measured: 1.5, unexplained: 0, worst: 0 },
      "The rows and the constant add up to the logit difference that the cache gives, +1.500, read from the " +
        "given logits. The gap, 0, is rounding (float32: up to 1e-4).",
    ],
    [
      "decimals that fit the larger number, which is the sum",
      [499.5],
      { measured: 1, unexplained: 0, worst: 0 },
      "The rows and the constant add up to +500.00, but the same reply says +1.00: it contradicts itself.",
    ],
    [
      "decimals that fit the larger number, which is measured",
      [0.5],
      { measured: -500, unexplained: 0, worst: 0 },
      "The rows and the constant add up to +1.00, but the same reply says −500.00: it contradicts itself.",
    ],
    [
      "“nothing: ” elsewhere than at its start",
      [1],
      { measured_from: "a file with nothing: in it" },
      "The rows and the constant add up to +1.500. Whether that is the model’s own logit difference is not " +
        "known: a file with nothing: in it.",
    ],
  ])("at length: %s", (_, rows, given, words) => expect(said(rows, given)).toBe(words));
});

it("a sentence on one line has whole parts, all of them in its title, and nothing of the previous sentence", () => {
  const node = document.createElement("p");
  for (const parts of [["“·to” reads “·Mary” 0.79", ", “<bos>” 0.13"], ["<b>", " x"], ["one"], []]) {
    fitWords(node, parts);
    expect([...node.children].map((child) => [child.tagName, child.textContent])).toEqual(
      parts.map((part) => ["SPAN", part]),
    );
    expect([node.title, node.textContent, node.className]).toEqual([parts.join(""), parts.join(""), "rs-fit"]);
  }
});

describe("what the constant is made of", () => {
  const attention: Target["inner"] = { kind: "attention", layer: 2, head: 1, destination: 5, source: 2 };
  const logits: Target = { contrasts: [] };
  const final = "biases of the final norm and the unembedding; the soft-cap, if there is one";

  it.each<[string, Target, string]>([
    ["logits", logits, final],
    ["an attention score", { ...logits, inner: attention }, "biases of the norm, and of queries and keys"],
    ["a neuron", { ...logits, inner: { kind: "neuron", layer: 1, index: 3 } }, "biases of the norm and of the neuron"],
    [
      "a direction",
      { ...logits, inner: { kind: "direction", key: "d", at: "1_pre" } },
      "biases on the way to the target",
    ],
    [
      "what a head moves into a score",
      { ...logits, inner: attention, through: [{ layer: 1, head: 0, source: null }] },
      "biases on the way to the target",
    ],
  ])("of %s", (_, target, words) => {
    expect(constantWords(target)).toBe(words);
  });
});

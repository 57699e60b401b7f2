import { signal as state } from "@preact/signals-core";
import { describe, expect, it, vi } from "vitest";
import type { Kernel } from "../dev/fake-model";
import { recordedKernel } from "../dev/recorded-kernel";
import { blocks, everything, stepOf } from "../src/draw/plane";
import { paintThumbnail } from "../src/draw/thumbnail";
import { bringIntoSight, panBy, partOf, zoomBy } from "../src/draw/zoom";
import { Store } from "../src/state/store";
import type { Direction } from "../src/views/attention/attention-data";
import { AttentionRoom } from "../src/views/attention/attention-room";
import { decimals, Limits, length, writtenShort } from "../src/views/attention/attention-scale";
import { cellNumbers, cellSentence, lineOf, lineWords } from "../src/views/attention/attention-words";
import { createCard } from "../src/views/attention/card";
import { aloneIn, slotsIn } from "../src/views/attention/card-slots";
import { readTextLine } from "../src/views/attention/text-line";
import { nameOf, readText, superpose } from "../src/views/attention/text-picture";
import { largest, ThumbnailStore } from "../src/views/attention/thumbnail-data";
import { mountReading } from "../src/views/strip/reading";
import { type Ask, Client } from "../src/wire/client";
import type { ReadAttention } from "../src/wire/protocol.gen";
import { life } from "./lives";
import { all, key, open, SHAPE, text } from "./open";

// A 3 × 3 head: each row sums to 1, nothing above the diagonal.
const PATTERN = Float32Array.of(1, 0, 0, 0.25, 0.75, 0, 0.125, 0.79, 0.085);
const ATTENTION = {
  ...everything(3),
  step: 1,
  size: 3,
  maps: { pattern: PATTERN, value: PATTERN.map((w) => 4 * w), contribution: PATTERN.map((w) => -w) },
  reads: null,
  sourceContributions: Float32Array.of(0.01, 1.93, -0.5),
  locked: null,
  notes: [],
};

function storeOf(...texts: string[]): Store {
  const store = new Store();
  store.tokens.value = texts.map((t) => ({ text: t }));
  store.facts.value = {
    kind: "describe",
    name: "cache",
    model: "m",
    layers: 1,
    heads: 1,
    prompts: 1,
    positions: texts.length,
    dtype: "float32",
    device: "cpu",
    bytes: 1,
    missing: [],
    last: [texts.length - 1],
    has_tokens: true,
  };
  store.target.value = { contrasts: [{ answer: [{ id: 1, text: "a" }], distractor: [{ id: 2, text: "b" }] }] };
  return store;
}
const flat = (sentence: ReturnType<typeof cellSentence>): string =>
  sentence.map((part) => (typeof part === "string" ? part : part.stress)).join("");

describe("words", () => {
  const store = storeOf("<bos>", " Mary", " to");
  it.each([
    [
      "pattern",
      2,
      1,
      "L9H9: “·to” (destination 2) reads “·Mary” (source 1): attention 0.79, contributes +1.93 to the logit difference",
    ],
    [
      "value",
      2,
      1,
      "L9H9: “·to” (destination 2) reads “·Mary” (source 1): attention 0.79, value-weighted 3.2, contributes " +
        "+1.93 to the logit difference",
    ],
    [
      "contribution",
      1,
      0,
      "L9H9: “·Mary” (destination 1) reads “<bos>” (source 0): attention 0.25, contributes −0.25 to the logit " +
        "difference there",
    ],
    ["pattern", 0, 2, "L9H9: “<bos>” (destination 0) cannot see “·to” (source 2), which comes later"],
  ] as const)("describe a cell: %s, %i, %i", (weighting, q, k, words) =>
    expect(flat(cellSentence(store, ATTENTION, ATTENTION, weighting, "L9H9", q, k))).toBe(words),
  );

  it("have only the attention if nothing more is known, and do not use values of another destination", () => {
    const bare = { ...ATTENTION, maps: { pattern: PATTERN } };
    expect(flat(cellSentence(store, bare, bare, "pattern", "L9H9", 1, 0))).toBe(
      "L9H9: “·Mary” (destination 1) reads “<bos>” (source 0): attention 0.25",
    );
    expect(flat(cellSentence(store, bare, bare, "pattern", "L9H9", 2, 1))).toContain("contributes +1.93");
  });

  it("use source contributions only at the destination of the reply, even if another one is selected", () => {
    const bare = { ...ATTENTION, maps: { pattern: PATTERN } };
    store.position.value = 1;
    expect(flat(cellSentence(store, bare, bare, "pattern", "L9H9", 1, 0))).toBe(
      "L9H9: “·Mary” (destination 1) reads “<bos>” (source 0): attention 0.25",
    );
    expect(flat(cellSentence(store, bare, bare, "pattern", "L9H9", 2, 1))).toContain("contributes +1.93");
    expect(flat(cellSentence(store, { ...bare, locked: 1 }, bare, "pattern", "L9H9", 1, 1))).toContain(
      "contributes +1.93",
    );
    store.position.value = "last";
  });

  it("say that a cell of a mean is empty: its destination or its source is padding in every prompt", () => {
    const maps = { pattern: Float32Array.of(1, 0, NaN, 0.25, 0.75, NaN, NaN, NaN, NaN) };
    const mean = { ...ATTENTION, maps, sourceContributions: null };
    for (const [q, k] of [
      [2, 1],
      [0, 2],
    ] as const) {
      expect(flat(cellSentence(store, mean, mean, "pattern", "L9H9", q, k))).toBe(
        `L9H9: no prompt has tokens at both destination ${q} and source ${k}`,
      );
      expect(cellNumbers(store, mean, mean, "pattern", q, k)).toBeNull();
    }
    expect(cellNumbers(store, mean, mean, "pattern", 1, 0)).toBe("0.25");
    const block = { ...mean, ...everything(6), step: 2, size: 6 };
    expect(flat(cellSentence(store, block, block, "pattern", "L9H9", 5, 3))).toBe(
      "L9H9: no prompt has tokens at both destinations 4–5 and sources 2–3",
    );
  });

  it("list what a token reads and what reads it, the strongest first", () => {
    expect([...lineOf(PATTERN, 3, "reads", 1)]).toEqual([0.25, 0.75, NaN]);
    expect([...lineOf(PATTERN, 3, "read-by", 1)]).toEqual([NaN, 0.75, Math.fround(0.79)]);
    expect(lineWords(store, "pattern", "reads", 2, lineOf(PATTERN, 3, "reads", 2), 2)).toBe(
      "“·to” reads “·Mary” 0.79, “<bos>” 0.13",
    );
    expect(lineWords(store, "pattern", "read-by", 1, lineOf(PATTERN, 3, "read-by", 1))).toBe(
      "“·Mary” is read by “·to” 0.79, “·Mary” 0.75",
    );
    expect(lineWords(store, "contribution", "reads", 1, lineOf(ATTENTION.maps.contribution, 3, "reads", 1))).toBe(
      "contributions at “·Mary”: “·Mary” −0.75, “<bos>” −0.25",
    );
  });

  it("keep long tokens short and right-to-left ones inside their quotes", () => {
    const odd = storeOf("x".repeat(10_000), "שלום");
    const two = {
      ...everything(2),
      step: 1,
      size: 2,
      maps: { pattern: Float32Array.of(1, 0, 0.5, 0.5) },
      reads: null,
      sourceContributions: null,
      locked: null,
      notes: [],
    };
    const words = flat(cellSentence(odd, two, two, "pattern", "L0H0", 1, 0));
    expect(words.length).toBeLessThan(200);
    expect(words).toContain("“\u2068שלום\u2069” (destination 1)");
  });
});

describe("scales", () => {
  it("are shared by all visible pictures of a weighting, or are each picture's own", () => {
    const store = new Store();
    const limits = new Limits(store);
    limits.report("a", "value", 3);
    limits.report("b", "value", 5);
    limits.report("c", "contribution", 9);
    expect([limits.of("pattern", 0.3), limits.of("value", 3), limits.of("contribution", 1)]).toEqual([1, 5, 9]);
    limits.forget("b");
    expect(limits.shared("value")).toBe(3);
    store.ownRange.value = true;
    expect([limits.of("pattern", 0.3), limits.of("value", 2), limits.of("contribution", 1)]).toEqual([0.3, 2, 1]);
  });

  it("write numbers with as many digits as needed", () => {
    expect([3.16, 0.2, 12.34, 0, 3e-6].map(length)).toEqual(["3.2", "0.20", "12.3", "0.0", "<0.0001"]);
    expect([2, 0.5, 0.012].map(decimals)).toEqual([1, 2, 3]);
    expect([
      writtenShort("contribution", -0.5, 2),
      writtenShort("contribution", -0.001, 2),
      writtenShort("value", 3.16, 1),
    ]).toEqual(["−0.50", "0", "3.2"]);
  });
});

describe("zoom", () => {
  const start = { left: 0, top: 0, span: 16 };
  it("keeps the point under the pointer where it is", () => {
    const zoom = zoomBy(start, 16, 2, 0.75, 0.25);
    expect(zoom).toEqual({ left: 6, top: 2, span: 8 }); // 12 of 16 is 6 + ¾ of 8
    expect(zoomBy(zoom, 16, 0.5, 0.75, 0.25)).toEqual(start);
  });
  it("stays inside the matrix, shows whole cells, and never fewer than four", () => {
    expect(zoomBy(start, 16, 100)).toEqual({ left: 6, top: 6, span: 4 });
    expect(zoomBy({ left: 0, top: 0, span: 3 }, 3, 10)).toEqual({ left: 0, top: 0, span: 3 });
    expect(panBy({ left: 6, top: 6, span: 4 }, 16, 100, -100)).toEqual({ left: 12, top: 0, span: 4 });
    expect(partOf({ left: 6.4, top: 5.6, span: 4.2 }, 16)).toEqual({ left: 6, top: 6, span: 4 });
    expect(partOf(null, 16)).toEqual(start);
  });
  it("follows the cell chosen with the keyboard", () => {
    expect(bringIntoSight({ left: 0, top: 0, span: 4 }, 16, 7, 2)).toEqual({ left: 0, top: 4, span: 4 });
  });
});

describe("superposition", () => {
  it("is the mean of the heads; for contributions, the sum", () => {
    const maps = [Float32Array.of(1, 0.5), Float32Array.of(0, 1)];
    expect([...superpose(maps, "pattern")]).toEqual([0.5, 0.75]);
    expect([...superpose(maps, "contribution")]).toEqual([1, 1.5]);
    expect(nameOf({ heads: ["L1H1", "L2H2", "L3H3"] }, "value", 3)).toBe("mean of L1H1, L2H2 and L3H3");
    expect(nameOf({ layer: 4 }, "contribution", 9)).toBe("sum of all 9 heads of layer 4");
  });
});

/** Attention of a prompt with 1,024 tokens. `sent` has the requests, each with its answer. */
function longRoom() {
  const store = storeOf(...Array.from({ length: 1024 }, () => "a"));
  const end = life();
  const sent: { ask: ReadAttention; answer: () => void; refuse: () => void }[] = [];
  let tell: (message: unknown, buffers: DataView[]) => void = () => undefined;
  const client = new Client(
    {
      send: ({ id, ask }) => {
        if (ask.kind !== "attention") return;
        const all = { start: 0, stop: 1024 };
        const [rows, columns] = [ask.rows ?? all, ask.columns ?? all];
        const step = stepOf(rows.stop - rows.start, columns.stop - columns.start);
        const cells = blocks(rows, step) * blocks(columns, step);
        const parts = [{ what: ask.weighting, wide: true }];
        const { layer, head } = ask;
        const reply = { kind: "attention", layer, head, positions: 1024, parts, notes: [], rows, columns, step };
        sent.push({
          ask,
          answer: () => tell({ id, reply }, [new DataView(new Float32Array(cells).fill(0.5).buffer)]),
          refuse: () => tell({ id, failure: { code: "failed", message: "The kernel refused this part." } }, []),
        });
      },
      onMessage: (listener) => (tell = listener),
    },
    end.signal,
  );
  return { store, room: new AttentionRoom(store, client), sent, end };
}

function longCard() {
  const { store, room, sent, end } = longRoom();
  const card = createCard("L0H0", room, state(true), end.signal);
  const press = (key: string, times = 1): void => {
    for (let i = 0; i < times; i += 1) card.node.querySelector(".rs-matrix")?.dispatchEvent(keyEvent(key));
  };
  return { store, card, sent, press };
}
const keyEvent = (key: string): KeyboardEvent => new KeyboardEvent("keydown", { key, bubbles: true });
const OTHER = { contrasts: [{ answer: [{ id: 5, text: "c" }], distractor: [] }] };
const isLine = ({ ask: { rows, columns } }: { ask: ReadAttention }): boolean => !!rows && !columns;
const isPart = ({ ask: { rows, columns } }: { ask: ReadAttention }): boolean => !!rows && !!columns;
const isWhole = ({ ask: { rows, columns } }: { ask: ReadAttention }): boolean => !rows && !columns;

describe("a card of a long prompt", () => {
  it("requests no part while its next picture is loading, because the part would be of that picture", async () => {
    const { store, card, sent, press } = longCard();
    sent[0]?.answer();
    await vi.waitFor(() => expect(card.seen()?.head).toBe("L0H0"));
    store.target.value = OTHER;
    press("+", 3);
    expect(sent.filter(isPart)).toEqual([]);
    sent.findLast(isWhole)?.answer();
    await vi.waitFor(() => expect(sent.filter(isPart)).toHaveLength(1));
  });

  it("has no line of another head below its picture", async () => {
    const { store, card, sent } = longCard();
    store.tokens.value = store.tokens.value.map((_, position) => ({ text: `t${position}` }));
    sent[0]?.answer();
    await vi.waitFor(() => expect(sent.filter(isLine)).toHaveLength(1));
    sent.find(isLine)?.answer();
    const reads = (): string => card.node.querySelector(".rs-reads")?.textContent ?? "";
    await vi.waitFor(() => expect(reads()).toContain("t1023"));
    card.head.value = "L0H1";
    sent.findLast(isWhole)?.answer();
    await vi.waitFor(() => expect(sent.filter(isLine)).toHaveLength(2));
    expect(reads()).toBe("");
    sent.findLast(isLine)?.answer();
    await vi.waitFor(() => expect(reads()).toContain("t1023"));
  });

  it("does not say why a part of another head was refused", async () => {
    const { card, sent, press } = longCard();
    sent[0]?.answer();
    await vi.waitFor(() => expect(card.seen()?.head).toBe("L0H0"));
    press("+", 3);
    press("0");
    card.head.value = "L0H1";
    sent.findLast(isWhole)?.answer();
    await vi.waitFor(() => expect(card.seen()?.head).toBe("L0H1"));
    expect(sent.filter(isPart).map(({ ask }) => ask.head)).toEqual([0]);
    sent.find(isPart)?.refuse();
    await new Promise((resolve) => setTimeout(resolve));
    expect(card.node.textContent).not.toContain("refused");
  });
});

describe("the text of a long prompt", () => {
  const opened = async () => {
    const { store, room, sent, end } = longRoom();
    const [inSight, token, direction] = [state(true), state<number | null>(null), state<Direction>("reads")];
    const { picture } = readText(room, state({ heads: ["L0H0"] }), inSight, end.signal);
    const troubles: string[] = [];
    const report = (said: string): void => void troubles.push(said);
    const line = readTextLine(room, picture, token, direction, inSight, report, end.signal);
    sent[0]?.answer();
    await vi.waitFor(() => expect(picture.value).not.toBeNull());
    return { store, sent, picture, token, line, troubles };
  };

  it("shows no line of another selection under the name of this picture", async () => {
    const { store, sent, picture, token, line } = await opened();
    const first = picture.value;
    token.value = 5;
    sent.find(isLine)?.answer();
    await vi.waitFor(() => expect(line.value?.at).toBe(5));
    store.target.value = OTHER;
    token.value = 6;
    expect(sent.filter(isLine)).toHaveLength(1);
    sent.findLast(isWhole)?.answer();
    await vi.waitFor(() => expect(sent.filter(isLine)).toHaveLength(2));
    expect(line.value?.shown).toBe(first);
    sent.findLast(isLine)?.answer();
    await vi.waitFor(() => expect([line.value?.at, line.value?.shown]).toEqual([6, picture.value]));
    expect(picture.value).not.toBe(first);
  });

  it("does not say why a line was refused that is no longer wanted", async () => {
    const { sent, token, troubles } = await opened();
    token.value = 5;
    token.value = null;
    sent.find(isLine)?.refuse();
    await new Promise((resolve) => setTimeout(resolve));
    expect(troubles).toEqual([]);
  });
});

describe("a card", () => {
  it("keeps the picture of its head if the request for an earlier head is refused later", async () => {
    const store = storeOf("a", "b");
    const end = life();
    const sent: (() => void)[] = [];
    let tell: (message: unknown, buffers: DataView[]) => void = () => undefined;
    const client = new Client(
      {
        thrifty: true, // a kept picture is not requested again
        send: ({ id, ask }) => {
          if (ask.kind !== "attention") return;
          const { layer, head } = ask;
          const all = { start: 0, stop: 2 };
          const parts = [{ what: "pattern", wide: true }];
          const reply = { kind: "attention", layer, head, positions: 2, parts, notes: [], rows: all, columns: all };
          const failure = { code: "missing-activation", message: "not cached" };
          sent.push(() =>
            tell(head === 0 ? { id, reply } : { id, failure }, [new DataView(Float32Array.of(1, 0, 0.5, 0.5).buffer)]),
          );
        },
        onMessage: (listener) => (tell = listener),
      },
      end.signal,
    );
    const card = createCard("L0H0", new AttentionRoom(store, client), state(true), end.signal);
    sent[0]?.();
    await vi.waitFor(() => expect(card.seen()?.head).toBe("L0H0"));
    card.head.value = "L0H1";
    card.head.value = "L0H0";
    await vi.waitFor(() => expect(card.seen()?.head).toBe("L0H0"));
    sent[1]?.();
    await new Promise((resolve) => setTimeout(resolve));
    expect([card.seen()?.head, Object.keys(card.seen()?.pane.maps ?? {})]).toEqual(["L0H0", ["pattern"]]);
    expect(card.node.querySelector(".rs-trouble")).toBeNull();
  });
});

describe("what the strip shows that the head in focus reads", () => {
  it.each<[string, (store: Store) => void, (store: Store) => void]>([
    ["target", (store) => (store.target.value = OTHER), (store) => (store.target.value = storeOf().target.value)],
    ["weighting", (store) => (store.weighting.value = "value"), (store) => (store.weighting.value = "pattern")],
  ])("stays if a request for another %s is refused later", async (_, change, back) => {
    const store = storeOf("a", "b");
    const end = life();
    const sent: { answer: () => void; refuse: () => void }[] = [];
    let tell: (message: unknown, buffers: DataView[]) => void = () => undefined;
    const client = new Client(
      {
        thrifty: true, // a kept picture is not requested again
        send: ({ id, ask }) => {
          if (ask.kind !== "attention") return;
          const { layer, head, weighting } = ask;
          const parts = [
            { what: weighting, wide: true },
            { what: "reads", wide: true },
          ];
          const reply = { kind: "attention", layer, head, positions: 2, parts, notes: [] };
          const view = (...values: number[]): DataView => new DataView(Float32Array.from(values).buffer);
          sent.push({
            answer: () => tell({ id, reply }, [view(1, 0, 0.5, 0.5), view(0.5, 0.5)]),
            refuse: () => tell({ id, failure: { code: "missing-activation", message: "not cached" } }, []),
          });
        },
        onMessage: (listener) => (tell = listener),
      },
      end.signal,
    );
    store.preview.value = "L0H0";
    const { reading, trouble } = mountReading(new AttentionRoom(store, client), end.signal);
    sent[0]?.answer();
    await vi.waitFor(() => expect(reading.value?.head).toBe("L0H0"));
    change(store);
    back(store);
    sent[1]?.refuse();
    await new Promise((resolve) => setTimeout(resolve));
    expect([sent.length, reading.value?.head, trouble.value]).toEqual([2, "L0H0", null]);
  });
});

describe("thumbnails", () => {
  it("do not count empty cells as values", () => {
    const layer = { key: "", weighting: "contribution" as const, side: 2, limits: [4], notes: [] };
    expect(largest({ ...layer, cells: Int8Array.of(-127, 3, -128, -128) }, 0)).toBe(-4);
    expect(largest({ ...layer, cells: Int8Array.of(127, 3, -128, -128) }, 0)).toBe(4);
  });
  it("leave empty cells blank", () => {
    const canvas = document.createElement("canvas");
    const putImageData = vi.fn();
    vi.spyOn(canvas, "getContext").mockReturnValue({ putImageData } as unknown as RenderingContext);
    paintThumbnail(canvas, Int8Array.of(0, 0, -128, 127), 2, 1, () => [1, 2, 3]);
    const [image] = putImageData.mock.calls[0] as [ImageData];
    expect([3, 7, 11, 15].map((alpha) => image.data[alpha])).toEqual([255, 0, 0, 255]);
  });

  it("that arrive while the view is hidden are there when it is shown again", async () => {
    const store = storeOf("a", "b");
    const end = life();
    let answer = (): void => undefined;
    let tell: (message: unknown) => void = () => undefined;
    const client = new Client(
      {
        send: ({ id }) =>
          (answer = () =>
            tell({ id, reply: { kind: "thumbnails", layer: 0, side: 1, positions: 1, limits: [1], notes: [] } })),
        onMessage: (listener) => (tell = (message) => listener(message, [new DataView(new ArrayBuffer(1))])),
      },
      end.signal,
    );
    const visible = state(true);
    const thumbnails = new ThumbnailStore(new AttentionRoom(store, client), visible, end.signal);
    thumbnails.see(0, true);
    visible.value = false;
    answer();
    await new Promise((resolve) => setTimeout(resolve));
    visible.value = true;
    expect(thumbnails.layers.value.has(0)).toBe(true);
  });

  const scaled = () => {
    const store = storeOf("a", "b");
    store.facts.value = store.facts.value && { ...store.facts.value, layers: 3 };
    store.weighting.value = "contribution";
    const end = life();
    const sent: { layer: number; answer: (limit: number) => void; refuse: () => void }[] = [];
    let tell: (message: unknown) => void = () => undefined;
    const client = new Client(
      {
        send: ({ id, ask }) => {
          if (ask.kind !== "thumbnails") return;
          const { layer } = ask;
          const reply = { kind: "thumbnails", layer, side: 1, positions: 1, notes: [] };
          sent.push({
            layer,
            answer: (limit) => tell({ id, reply: { ...reply, limits: [limit] } }),
            refuse: () => tell({ id, failure: { code: "failed", message: "refused" } }),
          });
        },
        onMessage: (listener) => (tell = (message) => listener(message, [new DataView(new ArrayBuffer(1))])),
      },
      end.signal,
    );
    return {
      store,
      sent,
      thumbnails: new ThumbnailStore(new AttentionRoom(store, client), state(true), end.signal),
    };
  };

  it("of layers that are out of view since another target was chosen do not count for the colour scale", async () => {
    const { store, sent, thumbnails } = scaled();
    thumbnails.see(2, true);
    sent[0]?.answer(40);
    await vi.waitFor(() => expect(thumbnails.limit.value?.largest).toBe(40));
    thumbnails.see(2, false);
    thumbnails.see(0, true);
    sent[1]?.answer(3);
    await vi.waitFor(() => expect(thumbnails.layers.value.size).toBe(2));
    expect(thumbnails.limit.value?.largest).toBe(40); // of the same selection
    store.target.value = OTHER;
    expect(thumbnails.limit.value).toBeNull();
    sent[2]?.answer(2);
    await vi.waitFor(() => expect(thumbnails.limit.value).toEqual({ weighting: "contribution", largest: 2 }));
  });

  it("whose reply came for another target are requested again when the first target is back", async () => {
    const { store, sent, thumbnails } = scaled();
    const first = store.target.value;
    thumbnails.see(1, true);
    thumbnails.see(1, false);
    store.target.value = OTHER;
    sent[0]?.answer(1);
    await new Promise((resolve) => setTimeout(resolve));
    store.target.value = first;
    thumbnails.see(1, true);
    expect(sent.map(({ layer }) => layer)).toEqual([1, 1]);
  });

  it("that were refused for another target cause no message", async () => {
    const { store, sent, thumbnails } = scaled();
    thumbnails.see(1, true);
    thumbnails.see(1, false);
    store.target.value = OTHER;
    sent[0]?.refuse();
    await new Promise((resolve) => setTimeout(resolve));
    expect(thumbnails.trouble.value).toBeNull();
  });

  it("that were refused have a reason, and are requested again when they are seen again", async () => {
    const { sent, thumbnails } = scaled();
    thumbnails.see(0, true);
    thumbnails.see(1, true);
    sent[0]?.refuse();
    sent[1]?.answer(40);
    await vi.waitFor(() => expect(thumbnails.limit.value?.largest).toBe(40));
    const why = "refused";
    expect([thumbnails.trouble.value, thumbnails.layers.value.get(0)?.notes]).toEqual([why, [why]]);
    thumbnails.see(0, false);
    thumbnails.see(0, true);
    sent[2]?.answer(2);
    await vi.waitFor(() => expect(thumbnails.trouble.value).toBeNull());
  });

  it("are not requested for layers that were visible in a deeper model", async () => {
    const store = storeOf("a", "b");
    const end = life();
    const asked: number[] = [];
    let tell: (message: unknown) => void = () => undefined;
    const client = new Client(
      {
        send: ({ id, ask }) => {
          if (ask.kind !== "thumbnails") return;
          const { layer } = ask;
          asked.push(layer);
          const reply = { kind: "thumbnails", layer, side: 1, positions: 1, limits: [1], notes: [] };
          setTimeout(() => tell({ id, reply }));
        },
        onMessage: (listener) => (tell = (message) => listener(message, [new DataView(new ArrayBuffer(1))])),
      },
      end.signal,
    );
    const described = (layers: number) => store.facts.value && { ...store.facts.value, layers };
    store.facts.value = described(48);
    const thumbnails = new ThumbnailStore(new AttentionRoom(store, client), state(true), end.signal);
    thumbnails.see(40, true);
    await vi.waitFor(() => expect(thumbnails.layers.value.has(40)).toBe(true));
    store.facts.value = described(12);
    store.cacheName.value = "another";
    store.target.value = { contrasts: [{ answer: [{ id: 5, text: "c" }], distractor: [] }] };
    thumbnails.see(0, true);
    await vi.waitFor(() => expect(thumbnails.layers.value.has(0)).toBe(true));
    expect(asked).toEqual([40, 0]);
  });
});

describe("a blend", () => {
  it("is requested when the cache is described: of a long prompt only one row", () => {
    const asked: Ask[] = [];
    const end = life();
    const client = new Client({ send: ({ ask }) => asked.push(ask), onMessage: () => undefined }, end.signal);
    const store = storeOf("a", "b"); // the tokens of the cache that was shown before
    const { value: facts } = store.facts;
    store.facts.value = null;
    readText(new AttentionRoom(store, client), state({ layer: 0 }), state(true), end.signal);
    expect(asked).toEqual([]);
    store.facts.value = facts && { ...facts, positions: 600, last: [599] };
    expect(asked).toMatchObject([{ kind: "blend", rows: { start: 599, stop: 600 } }]);
  });
});

describe("the attention tab", () => {
  const words = (root: HTMLElement): HTMLElement[] => all(root, ".rs-word");
  const line = (root: HTMLElement): string => text(root.querySelector(".rs-text-line"));
  const shaded = (root: HTMLElement): number[] =>
    words(root).flatMap((w, i) => (w.querySelector<HTMLElement>(".rs-word-text")?.style.backgroundColor ? [i] : []));

  it("shades what a token reads; a click, clear or Esc ends the lock and keeps the pins", async () => {
    const { root, model, settled } = await open({ heads: ["L0H0", "L1H1"], presentation: "text" });
    await settled();
    expect(line(root)).toMatch(/^mean of L0H0 and L1H1: “[^”]+” reads /);
    expect(shaded(root)).toEqual([0, 1, 2, 3, 4, 5]); // the destination of the panel
    words(root)[2]?.dispatchEvent(new Event("pointerover", { bubbles: true }));
    expect(shaded(root)).toEqual([0, 1, 2]);
    const unlock = [
      () => words(root)[2]?.click(),
      () => root.querySelector<HTMLElement>(".rs-clear")?.click(),
      () => key(words(root)[2], "Escape"),
    ];
    for (const letGo of unlock) {
      words(root)[2]?.click();
      root.querySelector(".rs-text-box")?.dispatchEvent(new Event("pointerleave"));
      expect([shaded(root), words(root)[2]?.getAttribute("aria-selected")]).toEqual([[0, 1, 2], "true"]);
      letGo();
      expect([shaded(root).length, words(root)[2]?.getAttribute("aria-selected")]).toEqual([6, "false"]);
    }
    expect(model.state.heads).toEqual(["L0H0", "L1H1"]);
    key(words(root)[2], "Escape"); // nothing is locked, so Esc clears the pins
    expect(model.state.heads).toEqual([]);
  });

  it("shades what reads a token, for the heads that are switched on, or for all heads", async () => {
    const { root, model, settled } = await open({
      heads: ["L0H0", "L1H1"],
      presentation: "text",
      weighting: "contribution",
    });
    await settled();
    expect(all(root, ".rs-word")[0]?.querySelectorAll(".rs-text-bars i")).toHaveLength(2);
    all(root, ".rs-text-tools button")
      .find((b) => text(b) === "is read by")
      ?.click();
    words(root)[4]?.dispatchEvent(new Event("pointerover", { bubbles: true }));
    expect(shaded(root)).toEqual([4, 5]);
    all(root, ".rs-head-chip")[0]?.click();
    await settled();
    expect(line(root)).toMatch(/^L1H1: /);
    all(root, ".rs-head-chip").at(-1)?.click();
    await vi.waitFor(() => expect(line(root)).toMatch(/^sum of all 6 heads: /));
    expect(model.asked.at(-1)?.ask).toMatchObject({ kind: "blend", layer: null, weighting: "contribution" });
  });

  it("names its axes: sources across, destinations down, with a mark at the selected destination", async () => {
    const { root, settled } = await open({ heads: ["L0H0"] });
    await settled();
    const card = root.querySelector<HTMLElement>('[aria-label="Attention L0H0"]') ?? document.body;
    expect([".rs-axis-from", ".rs-axis-to"].map((axis) => text(card.querySelector(axis)))).toEqual([
      "from (source) →",
      "to (destination)",
    ]);
    const labels = (axis: string): string[][] =>
      all(card, `${axis} > span`).map((label) => [
        text(label),
        label.getAttribute("style")?.replace(/:.*/, "") ?? "",
        label.className.trim(),
      ]);
    const [sources, destinations] = [labels(".rs-sources"), labels(".rs-destinations")];
    expect([sources.length, destinations.length]).toEqual([SHAPE.positions, SHAPE.positions]);
    expect(new Set(sources.map(([, place]) => place))).toEqual(new Set(["left"]));
    expect(new Set(destinations.map(([, place]) => place))).toEqual(new Set(["top"]));
    expect([sources.map(([, , marked]) => marked), destinations.map(([, , marked]) => marked)]).toEqual([
      ["", "", "", "", "", ""],
      ["", "", "", "", "", "rs-marked"],
    ]);
  });

  it("sends one request for a head that the pointer passes, although card and strip both show the head", async () => {
    const { root, model, settled } = await open({ heads: [] }, recordedKernel(), () => 15);
    await settled();
    model.asked.length = 0;
    const way = ["L0H1", "L1H0", "L2H1"];
    for (const head of way) {
      root
        .querySelector(`[role=gridcell][data-head=${head}]`)
        ?.dispatchEvent(new Event("pointerover", { bubbles: true }));
      await new Promise((done) => setTimeout(done, 5));
    }
    await vi.waitFor(() => expect(root.querySelector<HTMLElement>("[role=listbox]")?.dataset["head"]).toBe("L2H1"));
    await vi.waitFor(() => expect(root.querySelector(".rs-card.rs-waiting")).toBe(null));
    const asked = model.asked.flatMap(({ ask }) => (ask.kind === "attention" ? [`L${ask.layer}H${ask.head}`] : []));
    expect(way.map((head) => asked.filter((one) => one === head).length)).toEqual([1, expect.toBeOneOf([0, 1]), 1]);
  });

  it("keeps the last picture until the picture of another weighting is there", async () => {
    const honest = recordedKernel();
    let wait = 0;
    const { root, settled, model } = await open(
      { heads: ["L0H0"] },
      (ask) => {
        const answer = honest(ask);
        if (ask.kind !== "attention" || "failure" in answer) return answer;
        const parts = (answer.reply as { parts: { what: string }[] }).parts;
        const some = parts.flatMap((part, i) => (part.what === "pattern" || part.what === ask.weighting ? [i] : []));
        return {
          reply: { ...answer.reply, parts: some.map((i) => parts[i]) } as typeof answer.reply,
          buffers: some.map((i) => answer.buffers?.[i] ?? new ArrayBuffer(0)),
        };
      },
      () => wait,
    );
    await settled();
    const card = root.querySelector<HTMLElement>('[aria-label="Attention L0H0"]');
    const canvas = card?.querySelector("canvas");
    wait = 30;
    model.set("weighting", "value");
    expect([canvas?.getAttribute("aria-label"), card?.classList.contains("rs-waiting")]).toEqual([
      expect.stringMatching(/^Attention of L0H0/),
      true,
    ]);
    await vi.waitFor(() => expect(canvas?.getAttribute("aria-label")).toMatch(/^Value-weighted of L0H0/));
    expect(card?.classList.contains("rs-waiting")).toBe(false);
    model.set("weighting", "pattern");
    expect(canvas?.getAttribute("aria-label")).toMatch(/^Attention of L0H0/); // kept maps are drawn at once
  });

  it.each(["matrix", "text", "all"] as const)(
    "does not show the picture of another head or prompt in place of a refused one: %s",
    async (presentation) => {
      const honest = recordedKernel();
      let refused: (ask: { layer: number | null; prompt?: number | null }) => boolean = ({ layer }) => layer === 1;
      const { root, model, settled } = await open({ presentation }, (ask) =>
        ask.kind === "attention" && refused(ask)
          ? { failure: { code: "missing", message: "Keep hook_pattern in the cache." } }
          : honest(ask),
      );
      await settled();
      const shown = (): string =>
        text(
          root.querySelector(
            presentation === "text"
              ? ".rs-text-line"
              : ".rs-attention :not([hidden]) > .rs-card:not(.rs-placeholder), .rs-enlarged-head " +
                  ".rs-card:not(.rs-placeholder)",
          ),
        );
      const point = async (head: string): Promise<void> => {
        root.querySelector(`.rs-cell[data-head="${head}"]`)?.dispatchEvent(new Event("pointerover", { bubbles: true }));
        await settled();
      };
      await point("L0H0");
      expect(shown()).toMatch(/reads “/);
      await point("L1H1");
      expect(shown()).toContain("Keep hook_pattern in the cache.");
      expect(shown()).not.toMatch(/reads /);
      await point("L0H0");
      expect(shown()).toMatch(/reads “/);
      refused = ({ prompt }) => prompt === 1;
      model.set("prompt", 1);
      await settled();
      expect(shown()).toContain("Keep hook_pattern in the cache.");
      expect(shown()).not.toMatch(/reads /);
    },
  );

  it.each(["matrix", "all"] as const)("keeps the focus when its card is removed: %s", async (presentation) => {
    const { root, model, settled } = await open({ presentation, heads: ["L0H0"] });
    await settled();
    const place = presentation === "matrix" ? "rs-cards" : "rs-enlarged-head";
    const card = root.querySelector<HTMLElement>(`.${place} .rs-card[aria-label="Attention L0H0"]`);
    card?.querySelector<HTMLElement>(".rs-matrix")?.focus();
    expect(card?.contains(document.activeElement)).toBe(true);
    key(document.activeElement, "Escape");
    expect([model.state.heads, card?.isConnected, document.activeElement?.className]).toEqual([[], false, place]);
  });

  it.each([
    { key: "Escape" }, // removes the card
    { key: "z", ctrlKey: true }, // replaces the sentence
  ])("does not mark the row of a cell that was left after the key $key", async (pressed) => {
    const { root, model, settled } = await open({ heads: ["L0H0", "L1H0"] });
    await settled();
    const matrix = root.querySelector<HTMLElement>(".rs-cards .rs-matrix");
    matrix?.focus();
    key(matrix, "ArrowUp");
    key(matrix, "ArrowUp");
    matrix?.dispatchEvent(new KeyboardEvent("keydown", { ...pressed, bubbles: true }));
    matrix?.blur();
    model.set("heads", ["L1H0"]);
    await settled();
    expect(all(root, ".rs-cards .rs-lane:not([hidden])")).toEqual([]);
    expect(root.querySelector(".rs-axes.rs-has-active")).toBeNull();
  });

  it("requests only what is visible", async () => {
    const { model, settled } = await open({ heads: ["L0H0"], tab: "positions", presentation: "text" });
    await settled();
    const asked = (): string[] =>
      model.asked
        .map(({ ask }) => ask.kind)
        .filter((kind) => kind === "attention" || kind === "thumbnails" || kind === "blend");
    expect(asked()).toEqual(["attention"]); // the request of the token strip, in every tab
    model.set("tab", "attention");
    expect(asked()).toEqual(["attention", "attention"]);
  });

  it("shows tokens as text, and cuts very long ones", async () => {
    const hostile = ["<img src=x onerror=alert(1)>", "שלום", "🙂", "\n", "y".repeat(10_000), "</span><b>"];
    const honest = recordedKernel();
    const kernel: Kernel = (ask) =>
      ask.kind === "tokens" ? { reply: { kind: "tokens", tokens: hostile.map((t) => ({ text: t })) } } : honest(ask);
    for (const presentation of ["matrix", "text"] as const) {
      const { root, settled, close } = await open({ heads: ["L0H0"], presentation }, kernel);
      await settled();
      const view = root.querySelector<HTMLElement>(".rs-attention");
      expect(view?.querySelector("img, .rs-word b, .rs-sources b")).toBeNull();
      for (const node of view?.querySelectorAll<HTMLElement>("*") ?? [])
        for (const attribute of ["title", "aria-label"])
          expect(node.getAttribute(attribute)?.length ?? 0).toBeLessThan(600);
      const texts = presentation === "text" ? words(root).map(text) : all(root, ".rs-sources span").map(text);
      expect(texts.map((t) => t.slice(0, 12))).toEqual([
        "<img·src=x·o",
        "\u2068שלום\u2069",
        "🙂",
        "↵",
        "yyyyyyyyyyyy",
        "</span><b>",
      ]);
      for (const node of presentation === "text" ? words(root) : all(root, ".rs-sources span"))
        expect(node.getAttribute("dir")).toBe("auto");
      close();
    }
  });
});

it("a single card uses the whole area, if it is then larger than beside others", () => {
  const several = slotsIn(474, 690, 780);
  expect(several).toEqual({ columns: 2, rows: 2, side: 150 });
  expect(aloneIn(474, 690, 780, 330, several)).toEqual({ columns: 1, rows: 1, side: 284 }); // all of it is visible
  expect(aloneIn(474, 690, 560, 330, several)).toEqual({ columns: 1, rows: 1, side: 220 });
  expect(aloneIn(240, 690, 780, 330, several)).toBeNull();
});

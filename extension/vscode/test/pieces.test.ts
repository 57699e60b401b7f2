import { describe, expect, it } from "vitest";
import { type Answered, LIMITS, Pieces } from "../src/pieces";

const whole = (id: string, more = ""): string =>
  JSON.stringify({ answer: { id, reply: { kind: "caches", more } }, buffers: [] });
const piece = (id: string, text: string, number: unknown = 0, pieces: unknown = 1) => ({
  id,
  piece: number,
  pieces,
  text,
});
const code = (answered: Answered | null): string | undefined => answered?.answer.failure?.code;

describe("an answer in pieces", () => {
  it.each<[string, unknown, unknown]>([
    ["half a piece", 0.5, 2],
    ["less than none", -1, 2],
    ["one behind the last", 2, 2],
    ["of no pieces", 0, 0],
    ["of half a piece", 0, 0.5],
    ["of too many to count", 0, Infinity],
    ["a number as text", "0", 2],
    ["no number", null, 2],
    ["not a number", NaN, 2],
  ])("ignores %s", (_, number, of) => {
    const pieces = new Pieces(["a"]);
    expect(pieces.take(piece("a", "x", number, of))).toBeNull();
    expect(pieces.began("a")).toBe(false);
    expect(pieces.take(piece("a", whole("a")))?.answer.reply).toBeDefined();
  });

  it("ignores a piece that came before, one of another count, and an answer that nobody waits for", () => {
    const pieces = new Pieces(["a"]);
    const text = whole("a");
    expect(pieces.take(piece("a", text.slice(0, 9), 0, 2))).toBeNull();
    expect(pieces.take(piece("a", "!", 0, 2))).toBeNull();
    expect(pieces.take(piece("a", "!", 2, 3))).toBeNull();
    expect(pieces.take(piece("b", whole("b")))).toBeNull();
    expect(pieces.take(piece("a", text.slice(9), 1, 2))?.answer.reply).toBeDefined();
    expect(pieces.take(piece("a", text))).toBeNull();
  });

  it.each<[string, Partial<typeof LIMITS>, ReturnType<typeof piece>[]]>([
    ["of too many pieces", {}, [piece("a", "x", 0, LIMITS.pieces + 1)]],
    ["that is too long", { length: 10 }, [piece("a", "123456", 0, 9), piece("a", "789012", 1, 9)]],
    ["too long with what else is held", { held: 10 }, [piece("b", "123456", 0, 9), piece("a", "789012", 0, 9)]],
    ["one too many at a time", { open: 1 }, [piece("b", "1", 0, 9), piece("a", "1", 0, 9)]],
  ])("says of an answer %s that it is too long, once, and goes on", (_, limits, parts) => {
    const pieces = new Pieces(["a", "b", "c"], { ...LIMITS, ...limits });
    expect(parts.map((part) => code(pieces.take(part))).filter(Boolean)).toEqual(["too-long"]);
    expect(pieces.began("a")).toBe(false);
    expect(pieces.take(piece("a", "x", 2, 9))).toBeNull();
  });

  it("gives room back", () => {
    const pieces = new Pieces(["a", "b", "c"], { ...LIMITS, length: 100, held: 100, open: 1 });
    for (const id of ["a", "b", "c"]) expect(pieces.take(piece(id, whole(id)))?.answer.reply).toBeDefined();
  });

  it.each([
    "",
    "{",
    "null",
    "[]",
    JSON.stringify({ answer: { id: "b", reply: { kind: "caches" } }, buffers: [] }),
    JSON.stringify({ answer: { id: "a" }, buffers: [] }),
    JSON.stringify({ answer: { id: "a", reply: 7 }, buffers: [] }),
    JSON.stringify({ answer: { id: "a", failure: { code: 7 } }, buffers: [] }),
    JSON.stringify({ answer: { id: "a", reply: { kind: "x" } }, buffers: 7 }),
    JSON.stringify({ answer: { id: "a", reply: { kind: "x" } }, buffers: [7] }),
    JSON.stringify({ answer: { id: "a", reply: { kind: "x" } }, buffers: ["%"] }),
  ])("says that it cannot be read: %s", (text) => {
    expect(code(new Pieces(["a"]).take(piece("a", text)))).toBe("protocol");
  });
});

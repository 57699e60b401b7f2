import { describe, expect, it } from "vitest";
import { type Answered, LIMITS, Pieces } from "../src/hosts/executed/pieces";

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
    ["a piece with half a number", 0.5, 2],
    ["a piece with a negative number", -1, 2],
    ["a piece after the last", 2, 2],
    ["an answer of no pieces", 0, 0],
    ["an answer of half a piece", 0, 0.5],
    ["an answer of infinitely many pieces", 0, Infinity],
    ["a piece with a number as text", "0", 2],
    ["a piece without a number", null, 2],
    ["a piece with NaN as its number", NaN, 2],
  ])("ignores %s", (_, number, of) => {
    const pieces = new Pieces(["a"]);
    expect(pieces.take(piece("a", "x", number, of))).toBeNull();
    expect(pieces.hasBegun("a")).toBe(false);
    expect(pieces.take(piece("a", whole("a")))?.answer.reply).toBeDefined();
  });

  it("ignores a repeated piece, a piece with another count, and an answer without a request", () => {
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
    [
      "that is too long together with the other incomplete ones",
      { held: 10 },
      [piece("b", "123456", 0, 9), piece("a", "789012", 0, 9)],
    ],
    ["that is one too many at the same time", { open: 1 }, [piece("b", "1", 0, 9), piece("a", "1", 0, 9)]],
  ])("reports an answer %s as too long, once, and accepts other answers", (_, limits, parts) => {
    const pieces = new Pieces(["a", "b", "c"], { ...LIMITS, ...limits });
    expect(parts.map((part) => code(pieces.take(part))).filter(Boolean)).toEqual(["too-long"]);
    expect(pieces.hasBegun("a")).toBe(false);
    expect(pieces.take(piece("a", "x", 2, 9))).toBeNull();
  });

  it("counts only incomplete answers", () => {
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
  ])("reports that it cannot be read: %s", (text) => {
    expect(code(new Pieces(["a"]).take(piece("a", text)))).toBe("protocol");
  });
});

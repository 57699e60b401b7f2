import { describe, expect, it } from "vitest";
import type { Memento } from "vscode";
import { asOpened, memoryIn } from "../src/memory";

const path = "file:///w/a.ipynb";
const memory = (stored: unknown) =>
  memoryIn({ get: () => stored, update: async () => undefined, keys: () => [] } as unknown as Memento);

describe("stored data", () => {
  it.each([undefined, null, 7, "text", {}, { length: 1 }])("is ignored if it is not a list: %j", (stored) => {
    expect(memory(stored).all).toEqual([]);
  });

  it.each([
    null,
    7,
    "text",
    [],
    {},
    { path },
    { path: 7, name: "x" },
    { path, name: {} },
    { path: "", name: "x" },
    { path: "no address", name: "x" },
  ])("is ignored if it is not a view: %j", (stored) => {
    expect(asOpened(stored)).toBeNull();
    expect(memory([stored, { path, name: "cache" }]).all).toEqual([{ path, name: "cache", selection: null }]);
  });

  it.each([
    7,
    null,
    { contrasts: 7 },
    { contrasts: [], direction: 7 },
    { contrasts: [], own: "yes" },
    { contrasts: [null] },
    { contrasts: [{ answer: 7, distractor: [] }] },
    { contrasts: [{ answer: [{ id: "5", text: "" }], distractor: [] }] },
  ])("loses a target that is not valid: %j", (target) => {
    expect(asOpened({ path, name: "cache", selection: { target, heads: [7, "L1H1"] } })?.selection).toMatchObject({
      target: null,
      heads: ["L1H1"],
    });
  });

  it("is restored unchanged if it is valid", () => {
    const target = { contrasts: [{ answer: [{ id: 5, text: "é" }], distractor: [] }] };
    expect(asOpened({ path, name: "cache", selection: { target } })?.selection?.target).toEqual(target);
  });
});

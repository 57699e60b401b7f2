import { expect, it } from "vitest";
import { Lru } from "../src/base/lru";

it("removes the least recently used entry", () => {
  const lru = new Lru<string, number>(2);
  lru.set("a", 1);
  lru.set("b", 2);
  expect(lru.get("a")).toBe(1);
  lru.set("c", 3);
  expect([lru.peek("a"), lru.peek("b"), lru.peek("c"), lru.get("b")]).toEqual([1, undefined, 3, undefined]);
  expect(lru.peek("a")).toBe(1); // peeking does not count as use
  lru.set("d", 4);
  expect(lru.values()).toEqual([3, 4]);
});

it("counts sizes, also when entries are replaced or deleted, and keeps the newest entry whatever its size", () => {
  const lru = new Lru<string, string>(5, (text) => text.length);
  lru.set("a", "12");
  lru.set("b", "34");
  lru.set("a", "123");
  expect([lru.size, lru.values()]).toEqual([5, ["34", "123"]]);
  lru.delete("b");
  lru.delete("b");
  expect(lru.size).toBe(3);
  lru.set("c", "1234567");
  expect([lru.size, lru.values()]).toEqual([7, ["1234567"]]);
});

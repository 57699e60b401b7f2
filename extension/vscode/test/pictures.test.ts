import { beforeEach, expect, it } from "vitest";
import { Pictures } from "../src/pictures";
import { files, Uri } from "./fake-vscode";

const pictures = new Pictures(new Uri("file:///s/pictures") as never);
beforeEach(() => files.clear());

it("keeps the latest picture of each cache, and twenty pictures altogether", async () => {
  for (let i = 0; i < 25; i += 1) pictures.put("file:///a.ipynb", `cache ${i}`, `picture ${i}`);
  pictures.put("file:///a.ipynb", "cache 24", "another");
  expect(await pictures.get("file:///a.ipynb", "cache 24")).toBe("another");
  expect(await pictures.get("file:///a.ipynb", "cache 4")).toBeNull();
  expect(await pictures.get("file:///b.ipynb", "cache 24")).toBeNull();
  expect(files.size).toBe(20);
});

it("does not store a picture that is too large, and does not read one", async () => {
  pictures.put("file:///a.ipynb", "cache", "x".repeat(3_000_001));
  expect(await pictures.get("file:///a.ipynb", "cache")).toBeNull();
  pictures.put("file:///a.ipynb", "cache", "x");
  await pictures.get("file:///a.ipynb", "cache");
  for (const name of files.keys()) files.set(name, new Uint8Array(3_000_001));
  expect(await pictures.get("file:///a.ipynb", "cache")).toBeNull();
});

it("keeps the pictures of a renamed notebook", async () => {
  pictures.put("file:///a.ipynb", "cache", "of a");
  pictures.put("file:///b.ipynb", "cache", "of b");
  pictures.move("file:///a.ipynb", "file:///c.ipynb");
  expect(await Promise.all(["a", "b", "c"].map((name) => pictures.get(`file:///${name}.ipynb`, "cache")))).toEqual([
    null,
    "of b",
    "of a",
  ]);
});

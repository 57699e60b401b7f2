// A panel's picture as plain data, and its views.
import { describe, expect, it, vi } from "vitest";
import { demoTarget } from "../dev/recorded-kernel";
import { SNAPSHOT_EVENT } from "../src/snapshot/recorder";
import { keyOf, type Snapshot } from "../src/snapshot/snapshot";
import { checkSnapshot } from "../src/snapshot/snapshot-check";
import { mountSnapshot } from "../src/snapshot/snapshot-view";
import { summaryOf } from "../src/snapshot/summary";
import type { Ask } from "../src/wire/client";
import { life } from "./lives";
import { all, names, open, text } from "./open";

const WORDS = { normal: "As it was.", refusal: (what: string) => `Saved without ${what}.` };

/** The picture that a host gets from a panel, as JSON, as a notebook stores it. */
function picture(root: HTMLElement): Snapshot | null {
  let taken: Snapshot | null = null;
  root.dispatchEvent(new CustomEvent(SNAPSHOT_EVENT, { detail: { put: (snapshot: Snapshot) => (taken = snapshot) } }));
  if (!taken) return null;
  const { snapshot, trouble } = checkSnapshot(JSON.parse(JSON.stringify(taken)));
  if (trouble !== null) throw new Error(trouble);
  return snapshot;
}

async function reopened(traits: Parameters<typeof open>[0] = {}) {
  const live = await open(traits);
  await live.settled();
  await vi.waitFor(() =>
    expect(picture(live.root)?.entries.filter(({ ask }) => ask.kind === "attention")).toHaveLength(
      traits.heads?.length ?? 0,
    ),
  );
  const snapshot = picture(live.root);
  if (!snapshot) throw new Error("no picture");
  const el = document.createElement("div");
  document.body.append(el);
  mountSnapshot(el, snapshot, WORDS, life().signal);
  const root = el.querySelector<HTMLElement>(".residscope:not(:has(.rs-saved))");
  if (!root) throw new Error("nothing was mounted");
  await vi.waitFor(() => expect(root.dataset["state"]).toBe("ready"));
  return { live, snapshot, root, line: () => text(el.querySelector(".rs-saved")) };
}

const cells = (root: HTMLElement): (string | null)[] => names(all(root, ".rs-heads [role=gridcell]"));
const cell = (root: HTMLElement, head: string): HTMLElement | undefined =>
  all(root, "[role=gridcell]").find((node) => node.getAttribute("aria-label")?.startsWith(head));

describe("a panel's picture", () => {
  it("shows the same values without a kernel", async () => {
    const { live, root, line } = await reopened({ heads: ["L1H1", "L2H0"], prompt: 1 });
    expect(cells(root)).toEqual(cells(live.root));
    expect(cells(root)).toHaveLength(6);
    expect(text(root.querySelector("[role=status]"))).toMatch(
      /^rows and constant summed to [+−]\d\.\d{3} · from an earlier picture$/,
    );
    for (const part of [".rs-strip", ".rs-rank", ".rs-target", ".rs-prompt"])
      expect(text(root.querySelector(part))).toBe(text(live.root.querySelector(part)));
    expect(all(root, ".rs-card[data-head]:not(.rs-waiting)").map((card) => card.getAttribute("aria-label"))).toEqual([
      "Attention L1H1",
      "Attention L2H0",
    ]);
    expect(line()).toBe("As it was.");
  });

  it("undoes a selection for which it has no data, and reports it; the view shows no error", async () => {
    const { root, line } = await reopened();
    const before = cells(root);
    root.querySelector<HTMLElement>("[aria-label='Next prompt']")?.click();
    await vi.waitFor(() => expect(line()).toBe("Saved without prompt 1."));
    expect(text(root.querySelector(".rs-prompt"))).toContain("prompt");
    expect(root.querySelector<HTMLInputElement>("[aria-label='Prompt number']")?.value).toBe("0");
    expect(cells(root)).toEqual(before);
    all(root, ".rs-strip [role=option]")[2]?.click();
    await vi.waitFor(() => expect(line()).toBe("Saved without position 2."));
    expect(all(root, ".rs-strip [aria-selected=true]")).toHaveLength(1);
    await vi.waitFor(() => expect(root.dataset["state"]).toBe("ready"));
  });

  it("names the head for which it has no data, until another head is shown", async () => {
    const { root, line } = await reopened({ heads: ["L1H1"] });
    cell(root, "L0H0")?.focus();
    await vi.waitFor(() => expect(line()).toBe("Saved without the attention of L0H0."));
    await vi.waitFor(() => expect(root.dataset["state"]).toBe("ready"));
    cell(root, "L1H1")?.focus();
    await vi.waitFor(() => expect(line()).toBe("As it was."));
  });

  it("is given only when it is complete, and contains only what is on screen", async () => {
    let slow = 0;
    const live = await open({ heads: ["L1H1"] }, undefined, () => slow);
    expect(picture(live.root)).toBeNull();
    await live.settled();
    for (const head of ["L0H0", "L0H1", "L2H0"]) cell(live.root, head)?.focus();
    await live.settled();
    await vi.waitFor(() =>
      expect(picture(live.root)?.entries.filter(({ ask }) => ask.kind === "attention")).toHaveLength(2),
    );
    expect(picture(live.root)?.preview).toBe("L2H0");
    slow = 10_000;
    live.root.querySelector<HTMLElement>("[aria-label='Next prompt']")?.click();
    expect(picture(live.root)).toBeNull();
  });
});

describe("a record", () => {
  const target = demoTarget();
  const record = {
    selection: { target },
    defaults: { attribute: { norm: "frozen", position: "last" }, neurons: { k: 5 } },
  };
  const key = (ask: Ask): string => keyOf(ask, record);

  it("recognises a request whether or not it has its defaults", () => {
    const short = key({ kind: "attribute", by: "head", target });
    expect(
      key({
        norm: "frozen",
        position: "last",
        prompt: null,
        target: structuredClone(target),
        by: "head",
        kind: "attribute",
      }),
    ).toBe(short);
    expect(keyOf({ kind: "attribute", by: "head" } as unknown as Ask, record)).toBe(short);
  });

  it("distinguishes requests that differ", () => {
    const other = { contrasts: [{ answer: [{ id: 9, text: " Tom" }], distractor: [] }], direction: null };
    const asks: Ask[] = [
      { kind: "attribute", by: "head", target },
      { kind: "attribute", by: "layer", target },
      { kind: "attribute", by: "head", target, prompt: 0 },
      { kind: "attribute", by: "head", target, position: 0 },
      { kind: "attribute", by: "head", target: other },
      { kind: "attribute", by: "head", target, norm: "recomputed" },
      { kind: "attribute", by: "head", target: { ...target, direction: "d" } },
      { kind: "neurons", target },
      { kind: "neurons", target, layer: 0 },
      { kind: "neurons", target, k: 6 },
    ];
    expect(new Set(asks.map(key)).size).toBe(asks.length);
  });

  it("is not read from other data", () => {
    for (const value of [
      null,
      1,
      "x",
      [],
      {},
      { name: "c", saved: "", selection: {}, entries: [] },
      { name: "c", saved: "", selection: { target }, entries: [null] },
    ])
      expect(checkSnapshot(value).snapshot).toBeNull();
  });

  it("is summarised in a few lines of text, whatever a name or a token contains", async () => {
    const { snapshot } = await reopened({ cache_name: "<img src=x onerror=alert(1)>" });
    const box = document.createElement("div");
    box.innerHTML = summaryOf(snapshot);
    expect(box.querySelector("img")).toBeNull();
    expect(text(box)).toContain(
      "<img src=x onerror=alert(1)> · native logit difference (·Mary minus ·John) of prompt 0:",
    );
    expect(text(box)).toMatch(/Strongest heads: L\dH\d [+−]/);
  });
});

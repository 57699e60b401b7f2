// The tab "why": the questions that open it, its columns as sums, the pair map, and the keys.
import { describe, expect, it, vi } from "vitest";
import { columnsOf } from "../dev/component-table";
import type { Kernel } from "../dev/fake-model";
import { recordedKernel } from "../dev/recorded-kernel";
import { starred } from "../src/base/format";
import { settingOf } from "../src/export/shown-pictures";
import { storeOf } from "./made";
import { all, key, open, text } from "./open";
import { figure } from "./pictures";

const honest = recordedKernel();
const LABELS = ["L0H0", "L0H1", "L1H0", "L1H1", "L2H0", "L2H1", "embed", "0_mlp_out", "1_mlp_out", "2_mlp_out"];
const SIDES = {
  query: [0.5, -1, 0.25, 0.125, 0, 0, 0.5, 0.25, 0.375, 0],
  key: [-2, 1, 0.5, 0.25, 0, 0, 0.25, 0.5, 0.5, 0],
  moved: [0.125, 0.25, 0, 0, 0, 0, 0.5, 2, -0.875, 0],
};
const bufferOf = (rows: number[]): ArrayBuffer => Float32Array.from(rows).buffer as ArrayBuffer;
const token = (id: number, word: string, value: number) => ({ token: { id, text: word }, value });

/** A fake kernel. Its targets are read before layer 2, and the head reads position 2. */
const kernel: Kernel = (ask) => {
  if (ask.kind === "attribute" && (ask.target.inner || ask.target.through?.length)) {
    const inner = ask.target.through?.length ? null : ask.target.inner;
    const side = inner?.kind === "attention" ? (inner.side ?? "query") : "moved";
    const raw = inner?.kind === "attention" && inner.versus === null;
    const rows = SIDES[side];
    const sum = rows.reduce((total, value) => total + value, 0);
    return {
      reply: {
        kind: "attribute",
        by: ask.by,
        components: columnsOf(LABELS),
        measured: sum,
        constant: 0,
        unexplained: 0,
        worst: 0,
        tolerance: 1e-4,
        measured_from: "the cache",
        own: true,
        prompts: 1,
        notes: [],
        inner: {
          point: "2_pre",
          destination: 5,
          source: 2,
          ...(raw ? {} : { versus: 0, attention: 0.6, versus_attention: 0.22 }),
        },
      },
      buffers: [bufferOf(rows)],
    };
  }
  if (ask.kind === "attention" && ask.rows && ask.target.inner) {
    const parts = [{ what: "contribution" as const, scale: 1, wide: true }];
    const { layer, head, rows } = ask;
    return {
      reply: { kind: "attention", layer, head, positions: 6, parts, rows, columns: { start: 0, stop: 6 }, notes: [] },
      buffers: [bufferOf([0.25, 0, 0, -2, 1, 0])],
    };
  }
  if (ask.kind === "pairs")
    return {
      reply: {
        kind: "pairs",
        query: columnsOf(["L0H1"]),
        key: columnsOf(["1_mlp_out"]),
        query_others: 6,
        key_others: 7,
        measured: 1,
        notes: [],
      },
      buffers: [bufferOf([1.5, -0.25, 0.5, -0.75])],
    };
  if (ask.kind === "head-tokens")
    return {
      reply: {
        kind: "head-tokens",
        layer: ask.layer,
        head: ask.head,
        source: ask.source ?? 0,
        output_top: [token(1, " Mary", 1.5)],
        output_bottom: [token(2, " John", -0.5)],
        source_top: [token(3, " When", 0.25)],
        source_bottom: [],
        notes: [],
      },
    };
  return honest(ask);
};

const crumbs = (root: HTMLElement): string[] => all(root, ".rs-crumb").map(text);
const column = (root: HTMLElement, id: string): string[] =>
  all(root, `[data-column="${id}"] :is(h4, .rs-why-line)`).map(text).filter(Boolean);
const press = (node: Element | null, name: string): void => void key(node, name);
const opened = async () => {
  const panel = await open({ heads: ["L2H1"] }, kernel);
  await panel.settled();
  const here = panel.root.querySelector<HTMLElement>('.rs-ask-here [data-ask="why"]');
  await vi.waitFor(() => expect(here?.getAttribute("aria-disabled")).toBe("false"));
  return { ...panel, here };
};

describe("why a head reads a token", () => {
  it("has both sides and what the head moves, each with all others, so that they sum to the whole", async () => {
    const { root, here, settled, model } = await opened();
    here?.click();
    await settled();
    expect(model.state.tab).toBe("why");
    expect(column(root, "query")).toEqual([
      expect.stringMatching(/^Query side what .* looks for \+1\.00$/),
      ...["L0H1 −1.00", "L0H0 +0.50", "embedding +0.50", "MLP 1 +0.38", "L1H0 +0.25", "MLP 0 +0.25", "L1H1 +0.13"],
    ]);
    expect(column(root, "key")[0]).toMatch(/^Key side what .* offers, minus .* \+1\.00$/);
    expect(column(root, "moved").slice(0, 2)).toEqual([
      expect.stringMatching(/^What it moves from .* \+2\.00$/),
      "MLP 0 +2.00",
    ]);
    expect(text(root.querySelector(".rs-badge-long"))).toBe("✓ rows sum to +1.000 · log of 0.60 / 0.22, as cached");
    expect(text(root.querySelector(".rs-why-invites + .rs-caption"))).toMatch(
      /^These rows sum to an attention score, not to a logit: L2H1 reads .* and not .*\. Each side alone sums to/,
    );
    expect(all(root, ".rs-late").map((cell) => cell.dataset["head"])).toEqual(["L2H0", "L2H1"]);
    expect(text(root.querySelector(".rs-why-written"))).toContain(
      "L2H1 raises and lowers most, in logits ·Mary +1.50 ·John −0.50",
    );
  });

  it("has both units in the title of its exported picture", () => {
    const made = (title: string, quantity: string) => ({ title, note: "", quantity, total: 1, rows: [], all: [] });
    const columns = [made("Query side", "score"), made("Key side", "score"), made("What it moves", "contribution")];
    const setting = { ...settingOf(storeOf(["a", "b"])), quantity: "score" };
    const svg = figure({ picture: "why", columns, pairs: null }, setting);
    expect(svg).toContain("the score, by the query and by the key; and what the head then moves");
  });

  it("is a step of the trail: back and forward by keys, and what it moves is the next", async () => {
    const { root, here, settled } = await opened();
    here?.click();
    await settled();
    root.querySelector<HTMLElement>('[data-column="moved"] button')?.click();
    await settled();
    expect(crumbs(root)).toHaveLength(3);
    expect(column(root, "whole")[1]).toBe("MLP 0 +2.00");
    const turn = (name: string): boolean | undefined =>
      root
        .querySelector(".rs-trail")
        ?.dispatchEvent(new KeyboardEvent("keydown", { key: name, altKey: true, bubbles: true }));
    const here_ = (): string => text(root.querySelector('.rs-crumb[aria-current="step"]'));
    turn("ArrowLeft");
    turn("ArrowLeft");
    await settled();
    expect(here_()).toContain("·Mary − ·John");
    turn("ArrowRight");
    await settled();
    expect(here_()).toMatch(/^L2H1 reads/);
  });

  it("is compared with nothing, and shown in pairs that sum to both sides", async () => {
    const { root, here, settled, model } = await opened();
    here?.click();
    await settled();
    const versus = root.querySelector<HTMLSelectElement>('[aria-label="What the source is compared with"]');
    if (!versus) throw new Error("no choice");
    versus.value = "none";
    versus.dispatchEvent(new Event("change", { bubbles: true }));
    await settled();
    expect(text(root.querySelector(".rs-badge-long"))).toBe("✓ rows sum to +1.000, as cached");
    expect(crumbs(root)).toHaveLength(2);
    all(root, '[aria-label="What is shown of the score"] button')[1]?.click();
    await settled();
    expect(model.state.why).toBe("pairs");
    const cells = all(root, ".rs-pairs [data-cell]");
    expect(cells.map((cell) => cell.getAttribute("aria-label"))).toEqual([
      "L0H1 with MLP 1: +1.50",
      "L0H1 with 7 others: −0.25",
      "6 others with MLP 1: +0.50",
      "6 others with 7 others: −0.75",
    ]);
    expect(all(root, ".rs-pairs-sum").map(text)).toEqual(["+1.25", "−0.25", "+2.00", "−1.00", "+1.00"]);
    cells[0]?.focus();
    press(cells[0] ?? null, "ArrowDown");
    expect(text(root.querySelector(".rs-sentence"))).toBe("6 others in the query with MLP 1 in the key: +0.50");
  });

  it("explains what the number equals, whatever the source is compared with", async () => {
    const { root, here, settled } = await opened();
    here?.click();
    await settled();
    const badge = (): HTMLElement | null => root.querySelector(".rs-badge-text");
    expect(badge()?.title).toContain("their attention: the source gets e to the power of this number times");
    const versus = root.querySelector<HTMLSelectElement>('[aria-label="What the source is compared with"]');
    if (!versus) throw new Error("no choice");
    versus.value = "mean";
    versus.dispatchEvent(new Event("change", { bubbles: true }));
    await settled();
    expect(text(root.querySelector(".rs-badge-long"))).toBe(
      "✓ rows sum to +1.000 · log of 0.60, minus the mean log weighted by attention, as cached",
    );
    expect(badge()?.title).toContain("minus the mean of all scores, weighted by the attention");
    badge()?.click();
    expect(text(root.querySelector(".rs-reckoning"))).toContain("minus the mean log");
  });

  it("explains the mark of tokens in which prompts differ", () => {
    expect(starred("L2H1 reads ·John")).toBe("L2H1 reads ·John");
    expect(starred("L2H1 reads ∗₁₀")).toBe(
      "L2H1 reads ∗₁₀ (∗ is a token in which the prompts differ; the small number is its position)",
    );
  });

  it("is asked from the row of a head: what it moves here", async () => {
    const { root, here, settled, model } = await opened();
    here?.click();
    await settled();
    const head = all(root, '[data-column="query"] .rs-asks')[0] ?? null;
    press(head, "Enter");
    await vi.waitFor(() => expect(crumbs(root)).toHaveLength(3));
    const { through } = model.state.wire_target;
    expect(through).toEqual([{ layer: 0, head: 1, source: 3 }]);
    expect(crumbs(root)[2]).toMatch(/^what L0H1 moves from/);
    const asked = model.asked.flatMap(({ ask }) => (ask.kind === "attention" && ask.target.inner ? [ask] : []));
    expect(asked.some(({ rows }) => rows?.start === 5 && rows.stop === 6)).toBe(true);
    await settled();
    // The row in the column before is −1.00; the fake kernel's rows before layer 0, the embedding, sum to +0.50.
    expect(column(root, "whole")[0]).toMatch(/\+0\.50 of its −1\.00 to the .* · from .*; the rest from other sources/);
    const from = root.querySelector<HTMLSelectElement>('[aria-label="The source that the head reads"]');
    if (!from) throw new Error("no choice");
    expect([...from.options].map(({ value }) => value).sort()).toEqual(["0", "1", "2", "3", "4", "5"]);
    from.value = "0";
    from.dispatchEvent(new Event("change", { bubbles: true }));
    await settled();
    expect(model.state.wire_target.through).toEqual([{ layer: 0, head: 1, source: 0 }]);
    expect(crumbs(root)).toHaveLength(3);
  });

  it("is asked with w and p, for a neuron from its row, and is offered if nothing was asked", async () => {
    const { root, settled, model } = await opened();
    all(root, '[data-tab="why"]')[0]?.click();
    await settled();
    expect(all(root, ".rs-why-sources button").length).toBeGreaterThan(1);
    press(root.querySelector(".rs-grid"), "p");
    await settled();
    expect(crumbs(root)[1]).toMatch(/^what L2H1 moves from/);
    model.set("ranking", "neurons");
    await settled();
    all(root, '[aria-label="Top neurons"] [role="listitem"]')[0]?.click();
    await settled();
    expect(crumbs(root)[2]).toMatch(/^the input of L\dN\d+/);
    expect(root.querySelector<HTMLElement>(".rs-why-written")?.hidden).toBe(true); // it is not about L2H1
  });
});

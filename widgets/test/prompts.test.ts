import { describe, expect, it, vi } from "vitest";
import { enlargedKernel } from "../dev/enlarged-kernel";
import type { Kernel } from "../dev/fake-model";
import { watch } from "../src/base/lifetime";
import { promptSpreadOf } from "../src/views/prompts/prompt-spread";
import { PromptTexts, textOf } from "../src/views/prompts/prompt-texts";
import { Client } from "../src/wire/client";
import { life } from "./lives";
import { attributionOf } from "./made";
import { all, key, open, text } from "./open";

const SHAPE = { layers: 2, heads: 2, positions: 3, prompts: 200 };
const list = (root: HTMLElement): HTMLElement | null => root.querySelector('[role="listbox"][aria-label="Prompts"]');
const rows = (root: HTMLElement): { prompt: number; value: number }[] =>
  all(root, ".rs-prompt-row").map((row) => ({
    prompt: Number(text(row.querySelector(".rs-prompt-number")).replace("prompt ", "")),
    value: Number(text(row.querySelector(".rs-number")).replace("−", "-")),
  }));

describe("the texts of prompts", () => {
  const requested = () => {
    const end = life();
    const sent: { prompt: number; answer: (text: string) => void; refuse: () => void }[] = [];
    let tell: (message: unknown) => void = () => undefined;
    const client = new Client(
      {
        send: ({ id, ask }) => {
          if (ask.kind !== "tokens") return;
          sent.push({
            prompt: ask.prompt ?? -1,
            answer: (text) => tell({ id, reply: { kind: "tokens", tokens: [{ text }] } }),
            refuse: () => tell({ id, failure: { code: "changed", message: "The cache was changed." } }),
          });
        },
        onMessage: (listener) => (tell = (message) => listener(message, [])),
      },
      end.signal,
    );
    return { texts: new PromptTexts(client, end.signal), sent, end };
  };

  it("go at once when there is another cache", async () => {
    const { texts, sent, end } = requested();
    const painted: (string | null)[] = [];
    watch(end.signal, () => {
      void texts.version.value;
      painted.push(texts.text(0));
    });
    texts.request("one", [0]);
    sent[0]?.answer("first");
    await vi.waitFor(() => expect(painted.at(-1)).toBe("first"));
    texts.request("two", [0]);
    expect(painted.at(-1)).toBeNull();
    sent[1]?.answer("second");
    await vi.waitFor(() => expect(painted.at(-1)).toBe("second"));
  });

  it("are requested for another cache, even if the request for the cache before is refused", async () => {
    const { texts, sent } = requested();
    texts.request("one", [0]);
    texts.request("two", [0]);
    sent[0]?.refuse();
    await vi.waitFor(() => expect(sent).toHaveLength(2));
    sent[1]?.answer("second");
    await vi.waitFor(() => expect(texts.text(0)).toBe("second"));
    texts.request("two", [0, 1]);
    sent[2]?.refuse();
    await new Promise((resolve) => setTimeout(resolve));
    expect(sent.map(({ prompt }) => prompt)).toEqual([0, 0, 1]); // not again, until the list scrolls
  });
});

describe("spread over prompts", () => {
  it("has no view for a single prompt: the first tab is shown instead, and can be focused", async () => {
    const { root, model, settled } = await open({ tab: "prompts" }, enlargedKernel({ ...SHAPE, prompts: 1 }));
    await settled();
    await vi.waitFor(() => expect(model.state.tab).toBe("attention"));
    expect(text(root.querySelector('[role="tab"][tabindex="0"]'))).toBe("Attention");
  });

  it("lists the value of each prompt, in order or by value, and requests only the visible texts", async () => {
    const { root, model } = await open({ prompt: null, tab: "prompts" }, enlargedKernel(SHAPE));
    await vi.waitFor(() => expect(rows(root)).not.toEqual([]), { timeout: 5000 });
    expect(rows(root).map((row) => row.prompt)).toEqual(Array.from({ length: 14 }, (_, i) => i));
    expect(text(root.querySelector(".rs-prompts .rs-caption"))).toContain("The logit difference of each prompt");
    all(root, "button")
      .find((b) => text(b) === "by value")
      ?.click();
    const values = rows(root).map((row) => row.value);
    expect(values).toEqual([...values].sort((a, b) => b - a));
    await vi.waitFor(() => expect(all(root, ".rs-prompt-text").every((node) => text(node) !== "…")).toBe(true), {
      timeout: 10_000,
    });
    const texts = model.asked.filter(({ ask }) => ask.kind === "tokens" && ask.prompt !== null);
    expect(texts.length).toBeLessThanOrEqual(28);
  }, 20_000);

  it("shows the head in focus; Enter opens a prompt, the list stays, and Enter again shows the mean", async () => {
    const { root, model } = await open({ prompt: null, tab: "prompts" }, enlargedKernel(SHAPE));
    await vi.waitFor(() => expect(rows(root)).not.toEqual([]), { timeout: 5000 });
    root.querySelector('.rs-cell[data-head="L1H1"]')?.dispatchEvent(new Event("pointerover", { bubbles: true }));
    expect(text(root.querySelector(".rs-prompts .rs-caption"))).toMatch(/^What L1H1 adds/);
    const before = rows(root);
    expect(before.every((row) => Number.isFinite(row.value))).toBe(true);
    key(list(root), "ArrowDown");
    key(list(root), "ArrowDown");
    expect(text(root.querySelector(".rs-sentence"))).toMatch(
      /^prompt 1: L1H1 (adds|takes) [+−]\d\.\d+ (to|from) the logit difference \(mean [+−]\d\.\d+ ± \d\.\d+ over 200 prompts\) · click to open it$/,
    );
    key(list(root), "Enter");
    expect(model.state.prompt).toBe(1);
    await vi.waitFor(() => expect(root.querySelector(".rs-prompt-view.rs-waiting")).toBeNull(), { timeout: 5000 });
    expect(rows(root)).toEqual(before);
    expect(text(root.querySelector('.rs-prompt-row[aria-selected="true"] .rs-prompt-number'))).toBe("prompt 1");
    key(list(root), "Enter");
    expect(model.state.prompt).toBeNull();
  }, 20_000);

  it("says in which prompts the position is padding: they are not in the mean", async () => {
    const honest = enlargedKernel(SHAPE);
    const padded: Kernel = (ask) => {
      const outcome = honest(ask);
      if ("failure" in outcome || outcome.reply.kind !== "attribute" || ask.kind !== "attribute") return outcome;
      if (ask.prompt !== null) return outcome;
      const buffers = (outcome.buffers ?? []).map((buffer, i) => {
        const values = new Float32Array(buffer);
        return values.map((value, at) => (i > 1 && at % SHAPE.prompts === 1 ? NaN : value)).buffer;
      });
      return { reply: { ...outcome.reply, prompts: 199 }, buffers };
    };
    const { root } = await open({ prompt: null, tab: "prompts", top_k: 2 }, padded);
    await vi.waitFor(() => expect(rows(root)).not.toEqual([]), { timeout: 5000 });
    const written = all(root, ".rs-prompt-row .rs-number").map(text);
    expect(written.slice(0, 3)).toEqual([expect.stringMatching(/\d/), "padding", expect.stringMatching(/\d/)]);
    key(list(root), "ArrowDown");
    key(list(root), "ArrowDown");
    expect(text(root.querySelector(".rs-sentence"))).toMatch(/^prompt 1: the position is padding here \(.+ over 199 /);
    const mean = root.querySelector('[role=group][aria-label="Prompt"] button');
    expect([text(mean), mean?.getAttribute("title")]).toEqual([
      "mean of 199",
      "The mean over 199 of 200 prompts: in the others, the position is padding",
    ]);
    key(list(root), "ArrowDown");
    expect(text(root.querySelector(".rs-sentence"))).toMatch(/^prompt 2: logit difference [+−]\d/);
  }, 20_000);

  it("reports if there are too many prompts to send, and requests nothing while it is hidden", async () => {
    const honest = enlargedKernel(SHAPE);
    const short: Kernel = (ask) => {
      const outcome = honest(ask);
      if ("failure" in outcome || outcome.reply.kind !== "attribute") return outcome;
      return { reply: { ...outcome.reply, per_prompt: false }, buffers: (outcome.buffers ?? []).slice(0, 2) };
    };
    const { root, model, settled } = await open({ prompt: 3 }, short);
    await settled();
    expect(model.asked.some(({ ask }) => ask.kind === "attribute" && ask.prompt === null)).toBe(false);
    model.set("tab", "prompts");
    await vi.waitFor(() =>
      expect(text(root.querySelector(".rs-prompts .rs-view-trouble"))).toMatch(
        /^There are too many prompts \(200\) .+ mean is [+−]\d\.\d+ ± \d\.\d+/,
      ),
    );
  });
});

it.each([
  ["are sent", Float32Array.of(1, 3), Float32Array.of(10, 14), Float32Array.of(11, 17)],
  ["are too many to send", null, null, null],
])("the spread of the target includes each prompt's own constant, if the values %s", (_, rows, constants, each) => {
  // Values 3 above and 3 below 14. The kernel sends their deviation, √18; that of the rows alone is √2.
  const reply = { by: "accumulated" as const, labels: ["final_post"], prompts: 2, constant: 12 };
  const data = attributionOf([2], reply, [Math.sqrt(18)]);
  [data.perPrompt, data.constants] = [rows, constants];
  const figures = promptSpreadOf(data, null, 2);
  expect([figures?.mean, figures?.each]).toEqual([14, each]);
  expect(figures?.std).toBeCloseTo(Math.sqrt(18), 5);
});

describe("a prompt's text", () => {
  it("leaves out padding, stays on one line, and keeps both ends of a long text", () => {
    expect(textOf([{ text: "<pad>", padding: true }, { text: "Hi" }, { text: "\n" }, { text: " you" }])).toBe(
      "Hi↵ you",
    );
    const long = textOf([{ text: "start " }, { text: "x".repeat(10_000) }, { text: " end" }]);
    expect(long.length).toBeLessThan(200);
    expect([long.startsWith("start "), long.endsWith(" end")]).toEqual([true, true]);
  });
});

// Each position's own target: the tokens are coloured by what is added to each, or by their surprise.
import { describe, expect, it, vi } from "vitest";
import { columnsOf } from "../dev/component-table";
import type { Kernel } from "../dev/fake-model";
import { recordedKernel } from "../dev/recorded-kernel";
import recording from "../dev/recording.json";
import { type Snapshot, unpacked } from "../src/snapshot/snapshot";
import { float32 } from "../src/wire/client";
import { all, key, open, text } from "./open";

const NEXT = { contrasts: [], direction: null, own: false, next_token: { versus: null } };
const { entries } = recording as unknown as Snapshot;
const reply = entries.find(({ ask }) => ask.kind === "next-tokens");
const buffer = (at: number): Float32Array => float32(unpacked(reply?.buffers?.[at] ?? ""));

const values = (root: HTMLElement): (number | null)[] =>
  all(root, ".rs-tokens [data-position]").map((node) =>
    node.dataset["value"] === undefined ? null : Number(node.dataset["value"]),
  );
const rounded = (row: Float32Array): number[] => [...row.subarray(0, 5)].map((value) => Number(value.toFixed(4)));

describe("what came next", () => {
  it("colours each token by its surprise, and by what the head under the pointer adds to it", async () => {
    const { root, settled } = await open({ wire_target: NEXT, prompt: 0 });
    await settled();
    await vi.waitFor(() => expect(values(root).slice(1)).toEqual(rounded(buffer(0).map((value) => -value))));
    expect(values(root)[0]).toBeNull();
    expect(text(root.querySelector(".rs-next-key"))).toContain("surprise");
    const cell = root.querySelector<HTMLElement>('[data-head="L1H0"]');
    cell?.dispatchEvent(new Event("pointerenter", { bubbles: true }));
    cell?.focus();
    await vi.waitFor(() => expect(text(root.querySelector(".rs-next-key"))).toContain("L1H0 adds to each token"));
    expect(values(root).slice(1)).toEqual(rounded(buffer(3).subarray(2 * 6)));
    expect(text(root.querySelector(".rs-badge"))).toContain("5 of 5 positions add up");
  });

  it.each([
    { key: "Escape" },
    { key: "z", ctrlKey: true }, // replaces the sentence
  ])("forgets the neuron that is left, also after the key $key", async (pressed) => {
    const kernel = recordedKernel();
    const known: Kernel = (ask) => {
      if (ask.kind === "neurons") return kernel({ ...ask, position: "last" });
      if (ask.kind !== "next-tokens" || !ask.neurons?.length) return kernel(ask);
      const answer = kernel({ ...ask, neurons: [] });
      const rows = new Float32Array(ask.neurons.length * 6).fill(0.5);
      return {
        ...answer,
        buffers: [buffer(0).slice().buffer, buffer(1).slice().buffer, rows.buffer, new ArrayBuffer(0)],
      };
    };
    const { root, settled } = await open({ wire_target: NEXT, prompt: 0, ranking: "neurons" }, known);
    await settled();
    const colouredBy = (): string => text(root.querySelector(".rs-next-key"));
    const neuron = await vi.waitFor(() => root.querySelector<HTMLElement>(".rs-neurons [data-at]") ?? expect.fail());
    neuron.focus();
    await vi.waitFor(() => expect(colouredBy()).toMatch(/L\dN\d+ adds to each token/));
    neuron.dispatchEvent(new KeyboardEvent("keydown", { ...pressed, bubbles: true }));
    neuron.blur();
    await vi.waitFor(() => expect(colouredBy()).toContain("surprise"));
    expect(root.querySelector(".rs-axes.rs-has-active")).toBeNull(); // no layer is highlighted
  });

  it("shows the row of a hovered token where this token was predicted: at the position before it", async () => {
    const { root, settled } = await open({ wire_target: NEXT, prompt: 0, heads: ["L1H0"] });
    await settled();
    const option = (at: number): HTMLElement =>
      root.querySelector<HTMLElement>(`.rs-tokens [data-position="${at}"]`) ?? expect.fail();
    const names = (axis: string): string[] => all(root, `.rs-card .rs-${axis} .rs-lit`).map(text);
    await vi.waitFor(() => expect(text(root.querySelector(".rs-card .rs-reads"))).not.toBe(""));
    option(3).dispatchEvent(new Event("pointerover", { bubbles: true }));
    await vi.waitFor(() => expect(names("destinations")).toEqual([option(2).textContent]));
    expect(names("sources")).toEqual([]);
    expect(text(root.querySelector(".rs-card .rs-source-bars-label"))).toContain(option(2).textContent);
    expect(text(root.querySelector(".rs-card .rs-reads"))).toMatch(`“${option(2).textContent}” reads`);
    expect(text(root.querySelector(".rs-sentence"))).toContain(`“${option(3).textContent}” after`);
    all(root, ".rs-next-key button")
      .find((button) => text(button) === "attention")
      ?.click(); // then a token is a source
    await vi.waitFor(() => expect(names("sources")).toEqual([option(3).textContent]));
    expect(names("destinations")).toEqual([option(3).textContent]);
  });

  it("scales the colours to the answer, and marks what lies beyond them in the prompt", async () => {
    const kernel = recordedKernel();
    const surprise = [9, 8, 0.5, 2, 1.5, NaN];
    const { root, settled } = await open({ wire_target: NEXT, prompt: 0, tab: "positions" }, (ask) => {
      const answer = kernel(ask);
      if (!("reply" in answer)) return answer;
      if (answer.reply.kind === "describe") Object.assign(answer.reply, { generated_from: 3 });
      if (ask.kind !== "next-tokens" || ask.neurons?.length) return answer;
      const [, ...others] = answer.buffers ?? [];
      return { ...answer, buffers: [Float32Array.from(surprise, (value) => -value).buffer, ...others] };
    });
    await settled();
    const nextKey = (): string => text(root.querySelector(".rs-next-key"));
    await vi.waitFor(() => expect(nextKey()).toContain("0≥ 2.0")); // from the token at position 3 on
    expect(nextKey()).toContain("colours for the answer");
    expect(values(root).slice(1, 4)).toEqual([9, 8, 0.5]); // the values themselves are as they are
    await vi.waitFor(() =>
      expect(text(root.querySelector(".rs-lower .rs-caption"))).toContain("The colours are scaled to the answer."),
    );
  });

  it("asks for the head under the pointer if all heads are too many, and keeps its values", async () => {
    const kernel = recordedKernel();
    const few: Kernel = (ask) => {
      if (ask.kind === "positions" && ask.heads?.length === 1) {
        const components = columnsOf(["L1H0"]);
        const row = buffer(3).slice(2 * 6, 3 * 6);
        return {
          reply: { kind: "positions", by: "head", components, positions: 6, notes: [] },
          buffers: [row.buffer, row.buffer],
        };
      }
      const answer = kernel(ask);
      if (ask.kind !== "next-tokens" || !answer || !("buffers" in answer)) return answer;
      return { ...answer, buffers: [...(answer.buffers ?? []).slice(0, 3), new ArrayBuffer(0)] };
    };
    const { root, model, settled } = await open({ wire_target: NEXT, prompt: 0 }, few);
    await settled();
    const asked = (): number =>
      model.asked.filter(({ ask }) => ask.kind === "positions" && ask.heads?.[0] === "L1H0").length;
    const cell = root.querySelector<HTMLElement>('[data-head="L1H0"]');
    cell?.focus();
    await vi.waitFor(() => expect(values(root).slice(1)).toEqual(rounded(buffer(3).subarray(2 * 6))));
    cell?.blur();
    cell?.focus();
    await settled();
    expect(asked()).toBe(1);
  });

  it("asks what predicted a token by a click on it, but asks nothing about the first token", async () => {
    const { root, model, settled } = await open({ wire_target: NEXT, prompt: 0 });
    await settled();
    expect(root.querySelector('[aria-selected="true"][data-position]')?.getAttribute("data-position")).toBe("5");
    root.querySelector<HTMLElement>('[data-position="2"]')?.click();
    expect(model.state.position).toBe(1);
    root.querySelector<HTMLElement>('[data-position="0"]')?.click();
    expect(model.state.position).toBe(1);
    expect(root.querySelector('[data-position="0"]')?.getAttribute("title")).toContain("nothing came before it");
    await settled();
    root.querySelector<HTMLElement>('[data-position="5"]')?.click();
    expect(model.state.position).toBe("last");
    await settled();
    const positions = model.asked.flatMap(({ ask }) => (ask.kind === "attribute" ? [ask.position] : []));
    expect(positions).toEqual(expect.arrayContaining([4, 1])); // the last position is sent as its index, 4
  });

  it("is chosen from the list with the keyboard, and its runner-up is subtracted", async () => {
    const { root, model, settled } = await open({ prompt: 0 });
    await settled();
    root.querySelector<HTMLElement>('[data-side="answer"]')?.click();
    const input = root.querySelector<HTMLInputElement>('input[role="combobox"]') ?? expect.fail();
    await vi.waitFor(() => expect(text(root.querySelector(".rs-combobox-place"))).toContain("what came next"));
    key(input, "ArrowUp"); // from the first option to the last
    key(input, "Enter");
    expect(model.state.wire_target.next_token).toEqual({ versus: "runner-up" });
    await settled();
    root.querySelector<HTMLElement>('[aria-label="Remove the runner-up"]')?.click();
    expect(model.state.wire_target.next_token).toEqual({ versus: null });
  });
});

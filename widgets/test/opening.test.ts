// The replies that the kernel sends together with a panel are drawn without a request, once.
import { describe, expect, it, vi } from "vitest";
import { demoTarget, recordedKernel } from "../dev/recorded-kernel";
import type { Opening } from "../src/snapshot/prefetched";
import { all, names, open } from "./open";

const kernel = recordedKernel();
const kinds = (asked: { ask: { kind: string } }[]): string[] => asked.map(({ ask }) => ask.kind);
const cells = (root: HTMLElement): (string | null)[] => names(all(root, ".rs-heads [role=gridcell]"));

/** The answers to all first requests of a panel, and how the panel looks with them. */
async function recorded(): Promise<{ opening: Opening; cells: (string | null)[] }> {
  const { root, model, settled, close } = await open({ heads: ["L1H1"] });
  await settled();
  const entries = model.asked
    .filter(({ ask }) => ask.kind !== "presence")
    .map(({ ask }) => {
      const answer = kernel(ask);
      if ("failure" in answer) throw new Error(answer.failure.message);
      return { ask, reply: answer.reply, buffers: (answer.buffers ?? []).map((buffer) => new DataView(buffer)) };
    });
  const looked = cells(root);
  close();
  return {
    opening: { selection: { target: demoTarget() } as NonNullable<Opening["selection"]>, defaults: {}, entries },
    cells: looked,
  };
}

describe("an opening", () => {
  it("is drawn without a request, and is used once", async () => {
    const record = await recorded();
    const { root, model, settled } = await open({ heads: ["L1H1"], opening: record.opening });
    await settled();
    expect(kinds(model.asked)).toEqual(["presence"]);
    expect(cells(root)).toEqual(record.cells);
    expect(all(root, ".rs-card:not(.rs-placeholder):not(.rs-waiting)")).toHaveLength(1);
    model.set("prompt", 1);
    await settled();
    expect(kinds(model.asked)).toContain("attribute");
    const before = model.asked.length;
    model.set("prompt", 0);
    await settled();
    expect(kinds(model.asked.slice(before))).toContain("attribute"); // the cache may have changed
  });

  it("answers earlier requests while the kernel is busy", async () => {
    const record = await recorded();
    const { root, model, settled } = await open({ heads: ["L1H1"] }, kernel, () => Infinity);
    expect(root.dataset["state"]).toBe("loading");
    model.set("opening", record.opening);
    await settled();
    expect(root.dataset["state"]).toBe("ready");
    expect(cells(root)).toEqual(record.cells);
  });

  it("answers nothing after Python has removed it", async () => {
    const record = await recorded();
    const { root, model } = await open({ opening: record.opening, prompt: 1 }, kernel, () => Infinity);
    model.set("opening", {});
    model.set("prompt", 0);
    expect(root.dataset["state"]).toBe("loading");
    expect(kinds(model.asked)).toContain("attribute");
    await vi.waitFor(() => expect(root.textContent).toContain("Waiting for the kernel"), 3000);
  });
});

import { describe, expect, it, vi } from "vitest";
import { columnsOf, rowsOf } from "../dev/component-table";
import { recordedKernel } from "../dev/recorded-kernel";
import { quoted, visible } from "../src/base/format";
import { AttentionRoom } from "../src/views/attention/attention-room";
import { rowTicks, shownLabels } from "../src/views/positions/position-labels";
import { positions } from "../src/views/positions/positions";
import { Client } from "../src/wire/client";
import { life } from "./lives";
import { storeOf } from "./made";
import { all, key, open, text } from "./open";

const field = (root: HTMLElement): HTMLElement | null => root.querySelector(".rs-sheet-field");
const button = (root: HTMLElement, name: string): HTMLElement | undefined =>
  all(root, ".rs-positions ~ *, button").find((b) => text(b) === name);

describe("position map", () => {
  it("requests nothing until it is visible; its cells can be read; a column sets the destination", async () => {
    const { root, model, settled } = await open();
    await settled();
    const asked = (): number => model.asked.filter(({ ask }) => ask.kind === "positions").length;
    expect(asked()).toBe(0);
    root.querySelector<HTMLElement>('[data-tab="positions"]')?.click();
    await settled();
    expect(asked()).toBe(1);
    expect(field(root)?.getAttribute("aria-label")).toContain("7 components at 6 positions");
    key(field(root), "ArrowDown"); // starts at the destination
    key(field(root), "ArrowDown");
    key(field(root), "ArrowLeft");
    expect(text(root.querySelector(".rs-sentence"))).toMatch(
      /^0_attn_out adds [+−]\d\.\d+ to the logit difference at “·Mary” \(position 4\)$/,
    );
    key(field(root), "PageUp");
    key(field(root), "ArrowUp");
    expect(text(root.querySelector(".rs-sentence"))).toMatch(
      /^The model’s own logit difference at “·Mary” \(position 4\): \+\d\.\d+$/,
    );
    key(field(root), "Enter");
    expect(model.state.position).toBe(4);
  });

  it("lists the pinned heads first, then the ranking's, and pins by their names", async () => {
    const { root, model, settled } = await open({ tab: "positions", heads: ["L1H1"] });
    await settled();
    button(root, "heads")?.click();
    await vi.waitFor(() => expect(all(root, ".rs-sheet-head").length).toBeGreaterThan(1));
    const heads = all(root, ".rs-sheet-head");
    expect(text(heads[0])).toBe("L1H1");
    expect(new Set(heads.map(text)).size).toBe(heads.length);
    const other = text(heads[1]);
    heads[1]?.click();
    expect(model.state.heads).toEqual(["L1H1", other]);
  });

  it("names the norm convention of the lens' rows", async () => {
    const { root, settled } = await open({ tab: "positions", norm: "recomputed" });
    await settled();
    button(root, "lens")?.click();
    await vi.waitFor(() =>
      expect(text(root.querySelector(".rs-positions .rs-caption"))).toContain("the norm recomputed at each point"),
    );
  });

  it("shows a refusal in its own place", async () => {
    const honest = recordedKernel();
    const { root, settled } = await open({ tab: "positions" }, (ask) =>
      ask.kind === "positions" ? { failure: { code: "missing", message: "Keep `hook_mlp_out`." } } : honest(ask),
    );
    await settled();
    await vi.waitFor(() =>
      expect(text(root.querySelector(".rs-positions .rs-view-trouble"))).toBe("Keep hook_mlp_out."),
    );
    expect(root.dataset["state"]).toBe("ready");
  });
});

describe("the colour scale", () => {
  it("leaves out the padding of its own prompt, even if the tokens come after the map", async () => {
    const store = storeOf(["a", "b", "c", "d"], [], { prompts: 2, last: [3, 3] });
    store.tab.value = "positions";
    store.prompt.value = 0;
    const end = life();
    const sent: ((values: number[]) => void)[] = [];
    let tell: (message: unknown, buffers: DataView[]) => void = () => undefined;
    const client = new Client(
      {
        send: ({ id, ask }) => {
          if (ask.kind !== "positions") return;
          const reply = {
            kind: "positions",
            by: "layer",
            components: columnsOf(["0_mlp_out"]),
            positions: 4,
            notes: [],
          };
          const view = (values: number[]): DataView => new DataView(Float32Array.from(values).buffer);
          sent.push((values) => tell({ id, reply }, [view(values), view([0, 0, 0, 0])]));
        },
        onMessage: (listener) => (tell = listener),
      },
      end.signal,
    );
    const [parent, controls] = [document.createElement("div"), document.createElement("div")];
    const read = positions.mount(parent, controls, new AttentionRoom(store, client), end.signal);
    const limit = (): unknown => (read()?.picture as { limit?: number } | undefined)?.limit;
    const padded = [true, true, false, false].map((padding) => ({ text: "a", padding }));
    sent[0]?.([1, 1, 1, 1]);
    await vi.waitFor(() => expect(limit()).toBe(1));
    store.prompt.value = 1;
    sent[1]?.([50, 40, 2, 2]);
    await vi.waitFor(() => expect(limit()).toBe(50)); // the tokens of this prompt are not there yet
    store.tokens.value = padded;
    expect(limit()).toBe(2);
    store.prompt.value = 0;
    store.tokens.value = [{ text: "a" }, { text: "b" }, { text: "c" }, { text: "d" }];
    const scale = (): string => text(controls.querySelector(".rs-scale"));
    expect(scale()).toContain("2.00"); // the map of the other prompt stays until its reply comes, with its colours
  });
});

describe("labels", () => {
  it("are left out so that they do not touch; the marked ones are always there", () => {
    expect(shownLabels(6, 20, [null])).toEqual([0, 1, 2, 3, 4, 5]);
    const few = shownLabels(100, 5, [50, 99]);
    expect(few).toContain(50);
    expect(few).toContain(99);
    const sorted = [...few].sort((a, b) => a - b);
    expect(Math.min(...sorted.slice(1).map((at, i) => (at - (sorted[i] ?? 0)) * 5))).toBeGreaterThanOrEqual(12);
  });
  it("of rows are at the first row of a layer, and at the hovered row", () => {
    const labels = ["embed", ...Array.from({ length: 30 }, (_, l) => [`${l}_attn_out`, `${l}_mlp_out`]).flat()];
    const rows = rowTicks(rowsOf(...labels), 5.5, 40);
    expect(rows).toContain(40);
    expect(rows.filter((i) => i !== 40).every((i) => labels[i]?.endsWith("_attn_out"))).toBe(true);
  });
  it("cut long tokens at whole characters, and keep right-to-left text inside its quotes", () => {
    const long = visible("🙂".repeat(10_000));
    expect([...long]).toHaveLength(60);
    expect(long.endsWith("🙂…")).toBe(true);
    expect(visible(` ${"x".repeat(59)}`)).toHaveLength(60);
    expect(quoted("שלום")).toBe("“\u2068שלום\u2069”");
    expect(quoted("·to")).toBe("“·to”");
  });
});

import { describe, expect, it, vi } from "vitest";
import { columnsOf } from "../dev/component-table";
import { recordedKernel } from "../dev/recorded-kernel";
import type { Setting } from "../src/export/pictures";
import { badgeWords, type Found, featureLines, othersName, pageOf, verdict } from "../src/views/features/feature-lines";
import { FEATURES } from "../src/views/features/features-export";
import { featuresPicture } from "../src/views/features/features-picture";
import type { CacheFacts, FeaturesReply } from "../src/wire/protocol.gen";
import { all, key, names, open, text } from "./open";

const REPLY: FeaturesReply = {
  kind: "features",
  sae: "sae",
  cls: "Sae",
  read: "blocks.1.hook_mlp_out",
  site: "blocks.1.hook_mlp_out",
  row: columnsOf(["1_mlp_out"]),
  components: columnsOf(["error", "b_dec", "F7", "F3", "F9"]),
  links: ["", "", "https://www.neuronpedia.org/m/1-x/7", "javascript:alert(1)", ""],
  active: 12,
  others: 0.25,
  total: 1.5,
  measured: 1.5,
  worst: 1e-6,
  tolerance: 1e-4,
  prompts: 1,
  notes: [],
};
const found = (given: Partial<FeaturesReply> = {}): Found => ({
  reply: { ...REPLY, ...given },
  values: new Float32Array([0.5, -0.25, 1, -0.5, 0.5]),
  activations: new Float32Array([NaN, NaN, 2, 4, 0.5]),
});

describe("the rows of an SAE", () => {
  it("are its error, its bias, and the strongest features; the last line is the sum of the others", () => {
    const { lines, others, largest, mostActive } = featureLines(found(), 2);
    expect(lines.map(({ name, value, activation }) => [name, value, activation])).toEqual([
      ["error", 0.5, null],
      ["b_dec", -0.25, null],
      ["feature 7", 1, 2],
      ["feature 3", -0.5, 4],
    ]);
    expect([others, largest, mostActive]).toEqual([{ count: 10, value: 0.75 }, 1, 4]);
    expect(othersName(featureLines(found(), 2))).toBe("10 others");
    expect(lines.reduce((sum, { value }) => sum + value, others.value)).toBe(REPLY.total);
  });

  it("have a link only if it is a page of Neuronpedia", () => {
    expect(featureLines(found(), 9).lines.map(({ link }) => link)).toEqual([
      null,
      null,
      "https://www.neuronpedia.org/m/1-x/7",
      null,
      null,
    ]);
    for (const bad of [
      "http://www.neuronpedia.org/m/1/7",
      "https://www.neuronpedia.org.evil.com/m/1",
      "https://www.neuronpedia.org/../x/1",
      "https://www.neuronpedia.org/m/1?x",
      "https://user@www.neuronpedia.org/m/1",
    ])
      expect(pageOf(bad)).toBeNull();
  });

  it("are compared with the row in whose place they are", () => {
    expect(badgeWords(REPLY)).toBe("✓ rows sum to +1.500, the row MLP 1");
    expect(badgeWords({ ...REPLY, row: columnsOf(["2_pre"]) })).toBe("✓ rows sum to +1.500, all rows before 2_pre");
    const misses = { ...REPLY, measured: 1.25, worst: 0.25 };
    expect([verdict(misses), badgeWords(misses)]).toEqual([
      "misses",
      "rows sum to +1.500, not to +1.250, the row MLP 1",
    ]);
    expect(badgeWords({ ...REPLY, worst: 0.25 })).toBe("rows miss the row MLP 1 by up to 0.250 in a prompt");
    expect(badgeWords({ ...REPLY, measured: null, worst: null })).toBe(
      "rows sum to +1.500 · not compared with the row MLP 1",
    );
  });

  it("are exported with Python's labels, and drawn", () => {
    const picture = featuresPicture(found(), 2);
    const setting = { source: ["m"], target: "a − b", place: "last" } as unknown as Setting;
    expect(FEATURES.table(picture, setting)).toEqual({
      columns: ["component", "activation", "value"],
      rows: [
        ["error", "", 0.5],
        ["b_dec", "", -0.25],
        ["F7", 2, 1],
        ["F3", 4, -0.5],
        ["F9", 0.5, 0.5],
        ["other_features", "", 0.25],
      ],
    });
    expect(FEATURES.figure(picture, setting)).toContain("feature 7");
  });
});

describe("the tab “Features”", () => {
  const rows = (root: HTMLElement): HTMLElement[] => all(root, ".rs-features [data-row]");

  it("lists the rows of a known SAE, and colours the tokens by the feature that is clicked", async () => {
    const { root, model, settled } = await open();
    await settled();
    all(root, '[role="tab"]')
      .find((tab) => text(tab) === "Features")
      ?.click();
    await settled();
    expect(
      names(rows(root))
        .slice(0, 2)
        .map((name) => name?.split(",")[0]),
    ).toEqual(["error", "b_dec"]);
    expect(text(root.querySelector(".rs-feature-sum"))).toMatch(/^✓ rows sum to [+−][\d.]+, all rows before 1_pre$/);
    const two = rows(root).find((row) => row.dataset["row"] === "F2");
    if (!two) throw new Error("feature 2 is not listed");
    key(two, "Enter");
    await settled();
    expect(model.state.feature).toBe(2);
    const asked = model.asked.filter(({ ask }) => ask.kind === "feature-tokens");
    expect(asked.map(({ ask }) => ask)).toMatchObject([{ feature: 2, prompt: 0, sae: null }]);
    const tokens = all(root, ".rs-token[data-value]");
    expect(tokens).toHaveLength(6);
    expect(tokens[0]?.getAttribute("aria-description")).toMatch(/^feature 2: activation/);
    expect(text(root.querySelector(".rs-feature-name"))).toBe("feature 2 of blocks.1.hook_resid_pre");
    expect(root.querySelector(".rs-feature-link")?.getAttribute("href")).toBe(
      "https://www.neuronpedia.org/tiny/1-res/2",
    );
    expect(root.querySelector(".rs-feature-link")?.getAttribute("rel")).toContain("noopener");
    key(
      rows(root).find((row) => row.dataset["row"] === "F2"),
      " ",
    );
    await settled();
    expect([model.state.feature, all(root, ".rs-token[data-value]").length]).toEqual([null, 0]);
  });

  it("requests the features again, and nothing else, if only the SAE has changed", async () => {
    const honest = recordedKernel();
    const { model, settled } = await open({ tab: "features", feature: 2 }, (ask) =>
      honest(ask.kind === "features" || ask.kind === "feature-tokens" ? { ...ask, state: "…" } : ask),
    );
    await settled();
    const { reply } = honest({ kind: "describe" }) as { reply: CacheFacts };
    const before = model.asked.length;
    model.set("facts", { ...reply, saes: [{ name: "sae", site: "blocks.1.hook_resid_pre", state: "another" }] });
    await settled();
    expect(model.asked.slice(before).map(({ ask }) => ask)).toMatchObject([
      { kind: "features", state: "another" },
      { kind: "feature-tokens", feature: 2, state: "another" },
    ]);
  });

  it("is not there if no SAE is known", async () => {
    const honest = recordedKernel();
    const { root, settled } = await open({ tab: "features" }, (ask) => {
      const found = honest(ask);
      return ask.kind === "describe" && "reply" in found
        ? { reply: { ...found.reply, saes: [] } as CacheFacts }
        : found;
    });
    await settled();
    expect(all(root, '[role="tab"]').map(text)).not.toContain("Features");
    const chosen = (): string => text(root.querySelector('[role="tab"][aria-selected="true"]'));
    await vi.waitFor(() => expect(chosen()).toBe("Attention"));
  });
});

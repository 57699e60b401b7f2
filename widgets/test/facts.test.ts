// What the panel shows about its values: the badge, its notes, and what a cache does not contain.
import { describe, expect, it } from "vitest";
import { columnsOf } from "../dev/component-table";
import { type Options, recordedKernel } from "../dev/recorded-kernel";
import type { Traits } from "../src/entry/anywidget";
import { explanation, whoseOf } from "../src/views/header/badge-words";
import { entries, rowSum } from "../src/views/header/ledger";
import type { AttributionReply } from "../src/wire/protocol.gen";
import { all, names, open, text } from "./open";

const over = (options: Options) => open({}, recordedKernel(options));
const reply = (given: Partial<AttributionReply> = {}): AttributionReply => ({
  kind: "attribute",
  by: "head",
  components: columnsOf([]),
  measured: 4.616,
  constant: 0.5,
  unexplained: 3e-6,
  worst: 3e-6,
  tolerance: 1e-4,
  measured_from: "the given logits",
  own: true,
  prompts: 1,
  notes: [],
  ...given,
});

describe("the badge in words", () => {
  it.each<[string, Partial<AttributionReply>, string]>([
    [
      "agrees",
      {},
      "The rows and the constant add up to the model’s own logit difference, +4.616, read from the given " +
        "logits. The gap, 3e-6, is rounding (float32: up to 1e-4).",
    ],
    [
      "agrees in the mean",
      { prompts: 8, worst: 2e-5 },
      "The rows and the constant, in the mean over 8 prompts, add up to the model’s own logit difference, " +
        "+4.616, read from the given logits. The largest gap in a prompt, 2e-5, is rounding (float32: up to 1e-4).",
    ],
    [
      "misses",
      { unexplained: -0.35, worst: -0.35, notes: ["Why."] },
      "The rows and the constant add up to +4.966; the model’s own logit difference, read from the given " +
        "logits, is +4.616. They leave 0.35 unexplained; why:",
    ],
    [
      "misses, and no reason is known",
      { unexplained: 0.1, worst: 0.35, prompts: 2 },
      "The rows and the constant, in the mean over 2 prompts, add up to +4.516; the model’s own logit " +
        "difference, read from the given logits, is +4.616. In the worst prompt they leave 0.35 unexplained, " +
        "more than rounding (float32: up to 1e-4).",
    ],
    [
      "is not measured",
      {
        measured: null,
        unexplained: null,
        worst: null,
        measured_from: "nothing: the cache holds no logits; pass `logits=`",
      },
      "The rows and the constant add up to +2.000. Whether that is the model’s own logit difference is not " +
        "known: the cache holds no logits; pass `logits=`.",
    ],
    [
      "has rows that do not sum to the value in the reply",
      { measured: 9.999, unexplained: 0, worst: 0, tolerance: 1e9 },
      "The rows and the constant add up to +2.000, but the same reply says +9.999: it contradicts itself.",
    ],
    [
      "has a tolerance that would let anything pass",
      { unexplained: 2.6, worst: 2.6, tolerance: 1e9 },
      "The rows and the constant add up to +2.016; the model’s own logit difference, read from the given " +
        "logits, is +4.616. They leave 2.6 unexplained, more than rounding (float32: up to 1000000000).",
    ],
  ])("%s", (_, given, words) => {
    const { measured, unexplained, constant } = reply(given);
    const sum = measured === null || measured === 9.999 ? 2 : measured - (unexplained ?? 0);
    expect(
      explanation(
        { reply: reply(given), rows: new Float32Array([sum - constant]), std: null, perPrompt: null, constants: null },
        whoseOf(null, "logit difference"),
        "float32",
      ),
    ).toBe(words);
  });

  it("opens with the notes, each once; their number is on the badge", async () => {
    const { root, settled } = await over({ notes: ["One `thing`.", "Another."] }); // in all three decompositions
    await settled();
    expect(names(all(root, '[role="status"] [role="img"]'))).toEqual(["2 notes"]);
    root.querySelector<HTMLElement>("button.rs-badge-text")?.click();
    const more = root.querySelector<HTMLElement>('[aria-label="How the rows add up"]');
    expect([more?.hidden, all(more ?? root, "li").map(text), text(more?.querySelector("code"))]).toEqual([
      false,
      ["One thing.", "Another."],
      "thing",
    ]);
    expect(text(more)).toContain("The rows and the constant add up to the model’s own logit difference");
  });
});

describe("a cache with a new description from Python", () => {
  it("is requested again for everything in view, at the prompts’ new ends", async () => {
    const { model, settled } = await open({ prompt: null, position: 5 });
    await settled();
    const described = recordedKernel()({ kind: "describe" }) as { reply: NonNullable<Traits["facts"]> };
    const before = model.asked.length;
    model.state.position = "last";
    model.set("facts", { ...described.reply, last: [5, 3] });
    model.emit("change:position");
    await settled();
    const asked = model.asked.slice(before).map(({ ask }) => ask);
    expect(asked.map(({ kind }) => kind)).toEqual(expect.arrayContaining(["tokens", "attribute"]));
    expect(asked.flatMap((ask) => (ask.kind === "attribute" ? [ask.position] : [])).at(-1)).toBe("last");
  });
});

describe("what is missing", () => {
  it("heads of layers without attention: named, not drawn, not pinned, not added", async () => {
    const { root, model, settled } = await over({ mixers: [1] });
    await settled();
    const cells = all(root, '[role="gridcell"]');
    expect(names(cells.slice(2, 4))).toEqual(["L1H0 no attention", "L1H1 no attention"]);
    expect(cells[2]?.style.backgroundColor).toBe("");
    cells[2]?.dispatchEvent(new Event("pointerover", { bubbles: true }));
    cells[2]?.click();
    expect([model.state.heads, all(root, ".rs-card[role=region]"), text(root.querySelector(".rs-sentence"))]).toEqual([
      [],
      [],
      "L1H0: layer 1 has no attention heads",
    ]);
    expect(text(root.querySelector('[role="status"]'))).toMatch(/^✓ rows and constant sum to [+−]\d\.\d{3} /);
    expect(root.querySelectorAll(".rs-bar.rs-hollow")).toHaveLength(2);
    expect(text(root.querySelector(".rs-ledger"))).not.toContain("not known");
    const mixed = {
      reply: reply({ components: columnsOf(["L0H0", "L1H0", "1_mixer_out"]) }),
      rows: new Float32Array([1, NaN, 2]),
      std: null,
      perPrompt: null,
      constants: null,
    };
    expect([entries(mixed, 2).map((e) => `${e.name} ${e.value}`), rowSum(mixed)]).toEqual([
      ["heads 1", "other sublayers 2", "constant 0.5"],
      3.5,
    ]);
  });

  it.each([
    [true, true],
    [false, false],
  ])("token ids: the strip says so (has_tokens %s)", async (tokens, hidden) => {
    const { root, settled } = await over({ tokens });
    await settled();
    const note = root.querySelector<HTMLElement>(".rs-strip-note");
    expect([note?.hidden, text(note)]).toEqual([
      hidden,
      "positions only: the cache holds no token ids; pass tokens= to see text",
    ]);
  });
});

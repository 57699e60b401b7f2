import { describe, expect, it } from "vitest";
import { Store } from "../src/state/store";
import { edit, inView, label, quantity, shared, swap } from "../src/state/target";
import type { CacheFacts, Contrast, Token, TokenLabel } from "../src/wire/protocol.gen";

const token = (text: string, id = text.length): Token => ({ id, text });
const contrast = (answer: string, distractor?: string): Contrast => ({
  answer: [token(answer)],
  distractor: distractor === undefined ? [] : [token(distractor)],
});

describe("store", () => {
  it("pins in order and unpins", () => {
    const store = new Store();
    store.togglePin("L1H1");
    store.togglePin("L0H3");
    expect(store.heads.value).toEqual(["L1H1", "L0H3"]);
    store.togglePin("L1H1");
    expect(store.heads.value).toEqual(["L0H3"]);
  });

  it("keeps the preview when the pointer leaves; Esc clears pins and preview, and in the strip also the token", () => {
    const store = new Store();
    store.hover("L2H0");
    store.hover(null);
    expect([store.hoveredHead.value, store.preview.value]).toEqual([null, "L2H0"]);
    store.togglePin("L2H0");
    store.togglePosition(4);
    store.escape(false);
    expect([store.heads.value, store.preview.value, store.position.value]).toEqual([[], null, 4]);
    store.escape(true);
    expect(store.position.value).toBe("last");
  });

  it("has the last token of each prompt as its destination, unless another token is selected", () => {
    const store = new Store();
    const facts: CacheFacts = {
      kind: "describe",
      name: "cache",
      model: "",
      layers: 1,
      heads: 1,
      prompts: 2,
      positions: 5,
      dtype: "",
      device: "",
      bytes: 0,
      missing: [],
      last: [4, 3],
      has_tokens: true,
    };
    store.facts.value = facts;
    expect(store.destination.value).toBeNull(); // the mean over prompts that end in different places
    store.prompt.value = 1;
    expect(store.destination.value).toBe(3);
    store.togglePosition(0);
    expect(store.destination.value).toBe(0);
    store.togglePosition(0);
    expect(store.position.value).toBe("last");
  });
});

describe("names of tokens", () => {
  const prompt: TokenLabel[] = ["<bos>", " Mary", " John", " and", " John", "John"].map((text, id) => ({ text, id }));

  it.each([
    [prompt, ["<bos>", "·Mary", "·John₂", "·and", "·John₄", "John"]],
    [
      Array.from({ length: 12 }, (_, i): TokenLabel => ({ text: i === 1 || i === 10 ? "\n" : `w${i}` })),
      ["w0", "↵₁", "w2", "w3", "w4", "w5", "w6", "w7", "w8", "w9", "↵₁₀", "w11"],
    ],
    [
      [{ text: "a" }, { text: "", varies: [" x", " y"] }, { text: "", varies: [" z"] }],
      ["a", "∗₁", "∗₂"],
    ], // prompts differ at both
    [
      [{ text: "שלום" }, { text: "שלום" }],
      ["\u2068שלום\u2069₀", "\u2068שלום\u2069₁"],
    ], // the mark is outside the right-to-left text
    [[], []],
  ] satisfies [TokenLabel[], string[]][])("have their position if the same token occurs twice", (tokens, expected) => {
    const store = new Store();
    store.tokens.value = tokens;
    expect(tokens.map((_, i) => store.tokenName(i))).toEqual(expected);
    expect(store.tokenName(tokens.length)).toBe(String(tokens.length)); // no tokens yet
  });
});

describe("target", () => {
  const each = { contrasts: [contrast(" Mary", " Jo"), contrast(" Jo", " Mary")], direction: null };

  it("edits one prompt's contrast when one prompt is in view", () => {
    const { target: next } = edit(each, 1, "answer", [token(" Martha")]);
    expect(next.contrasts[0]).toEqual(each.contrasts[0]);
    expect(next.contrasts[1]).toEqual(contrast(" Martha", " Mary"));
  });

  it("edits all prompts in the mean, which become one contrast when they are equal", () => {
    const { target: half } = edit(each, null, "answer", [token(" Martha")]);
    expect(half.contrasts.map((c) => label(c.answer))).toEqual(["·Martha", "·Martha"]);
    expect(shared(half.contrasts, "distractor")).toBeNull();
    expect(edit(half, null, "distractor", []).target.contrasts).toEqual([contrast(" Martha")]);
  });

  it("edits the one contrast of all prompts, whichever is in view", () => {
    expect(edit({ contrasts: [contrast("a", "bb")] }, 5, "distractor", []).target.contrasts).toEqual([contrast("a")]);
  });

  const two = (prompt: number | null, side: "answer" | "distractor", tokens = [token(" Amy")]) => {
    const { target, notice } = edit({ ...each, own: true }, prompt, side, tokens);
    return { contrasts: target.contrasts, notice: notice ?? "", own: target.own };
  };
  it("never requests a chosen token minus each prompt’s second, and reports what it does instead", () => {
    expect(two(null, "answer")).toEqual({
      contrasts: [contrast(" Amy")],
      own: false,
      notice: expect.stringContaining("second token was dropped"),
    });
    expect(two(null, "answer").notice).toContain("the plain logit of “·Amy”");
    expect(two(null, "distractor")).toEqual({
      contrasts: [contrast(" Mary", " Amy"), contrast(" Jo", " Amy")],
      own: false,
      notice: expect.stringContaining("answer stays each prompt’s own top token"),
    });
    expect(two(null, "distractor", []).notice).toContain("its plain logit");
  });

  it("keeps a visible distractor, and reports if other prompts keep the model’s own", () => {
    expect(two(1, "answer")).toEqual({
      contrasts: [contrast(" Mary", " Jo"), contrast(" Amy", " Mary")],
      own: false,
      notice: expect.stringContaining("Only prompt 1 was changed: the other one keeps"),
    });
    const same = { contrasts: [contrast(" Mary", " Jo"), contrast(" Tom", " Jo")], own: true };
    expect(edit(same, null, "answer", [token(" Amy")])).toEqual({
      target: { contrasts: [contrast(" Amy", " Jo")], direction: null, own: false },
      notice: null,
    });
    const alone = { contrasts: [contrast(" Mary", " Jo")], own: true };
    expect(edit(alone, null, "answer", [token(" Amy")]).notice).toBeNull();
    // A distractor that the user gave to each prompt is kept, and visible.
    expect(edit(each, null, "answer", [token(" Amy")])).toEqual({
      target: { contrasts: [contrast(" Amy", " Jo"), contrast(" Amy", " Mary")], direction: null, own: false },
      notice: null,
    });
  });

  it("swaps all prompts, or nothing when one has no distractor", () => {
    expect(swap(each).contrasts[0]).toEqual(contrast(" Jo", " Mary"));
    const plain = { contrasts: [contrast("a", "bb"), contrast("a")] };
    expect(swap(plain)).toBe(plain);
  });

  it("names what is attributed", () => {
    expect(quantity(each, null)).toBe("logit difference");
    expect(quantity({ contrasts: [contrast("a")] }, null)).toBe("logit");
    expect(inView(each, 1)).toEqual([each.contrasts[1]]);
  });
});

import { describe, expect, it, vi } from "vitest";
import type { Kernel } from "../dev/fake-model";
import { demoTarget, recordedKernel } from "../dev/recorded-kernel";
import { type Attribution, Store } from "../src/state/store";
import { all, key, names, open, text } from "./open";

/** The variables of the notebook in the list of targets. */
const FOUND = '[role="group"][aria-labelledby$="found"] .rs-option';

describe("panel", () => {
  it("draws the kernel's values, names every head, and shows that the rows add up", async () => {
    const { root, settled } = await open();
    await settled();
    expect(root.dataset["state"]).toBe("ready");
    const cells = all(root, '[role="grid"] [role="gridcell"]');
    expect(cells).toHaveLength(6);
    for (const name of names(cells)) expect(name).toMatch(/^L\dH\d [+−]\d+\.\d{2,}$/);
    expect(root.querySelector('[role="status"]')?.textContent).toMatch(
      /^✓ rows and constant sum to [+−]\d\.\d{3} · the model’s own logit difference$/,
    );
  });

  it.each([
    [0.0039, "0.0039", "0.0000"],
    [2.24, "2.24", "0.00"],
    [1834, "1834", "0"],
  ])(
    "writes numbers of up to %s with the digits that they need, and zero without a sign",
    async (largest, most, least) => {
      const plain = recordedKernel();
      const { root, settled } = await open({ heads: ["L0H0", "L0H1"] }, (ask) => {
        const answer = plain(ask);
        const [rows] = "reply" in answer && ask.kind === "attribute" ? (answer.buffers ?? []) : [];
        if (rows && ask.kind === "attribute" && ask.by === "head")
          new Float32Array(rows).fill(largest / 4, 0, 6).set([-largest, -largest * 1e-9]);
        return answer;
      });
      await settled();
      expect(names(all(root, '[role="grid"] [role="gridcell"]')).slice(0, 2)).toEqual([
        `L0H0 −${most}`,
        `L0H1 ${least}`,
      ]);
      expect(names(all(root, '[aria-label="Top heads"] button'))).toContain(`L0H0 −${most}`);
      const [first, second] = all(root, ".rs-card[role=region] .rs-number");
      expect([text(first), first?.className, text(second), second?.className.trim()]).toEqual([
        `−${most}`,
        "rs-number rs-minus",
        least,
        "rs-number",
      ]);
      root.querySelector('[aria-label^="L0H0 "]')?.dispatchEvent(new Event("pointerover", { bubbles: true }));
      expect(text(root.querySelector(".rs-sentence b"))).toBe(`−${most}`);
      root.querySelector('[aria-label^="L0H1 "]')?.dispatchEvent(new Event("pointerover", { bubbles: true }));
      expect([text(root.querySelector(".rs-sentence b")), root.querySelector(".rs-sentence b")?.className]).toEqual([
        least,
        "",
      ]);
    },
  );

  it("shows tokens as text, whatever they contain", async () => {
    const hostile = "<img src=x onerror=alert(1)>";
    const honest = recordedKernel();
    const kernel: Kernel = (ask) => {
      if (ask.kind === "tokens")
        return { reply: { kind: "tokens", tokens: Array.from({ length: 6 }, () => ({ text: hostile })) } };
      if (ask.kind === "describe")
        return {
          reply: {
            ...(
              honest(ask) as { reply: Extract<ReturnType<Kernel>, { reply: unknown }>["reply"] & { kind: "describe" } }
            ).reply,
            name: hostile,
            model: hostile,
          },
        };
      return honest(ask);
    };
    const { root, settled } = await open(
      { heads: ["L0H0"], wire_target: { contrasts: [{ answer: [{ id: 1, text: hostile }], distractor: [] }] } },
      kernel,
    );
    await settled();
    expect(root.querySelector("img")).toBeNull();
    expect(root.querySelector('[role="option"]')?.textContent).toBe("<img·src=x·onerror=alert(1)>");
  });

  it("pins from map and ranking, in Python too; the preview becomes the pinned card in the same place", async () => {
    const { root, model, settled } = await open();
    await settled();
    const cell = root.querySelector<HTMLElement>('[aria-label^="L2H1"]');
    cell?.dispatchEvent(new Event("pointerover", { bubbles: true }));
    const card = root.querySelector('[aria-label="Attention L2H1"]');
    expect(card).not.toBeNull();
    cell?.click();
    await settled();
    expect(model.state.heads).toEqual(["L2H1"]);
    expect(cell?.getAttribute("aria-selected")).toBe("true");
    expect(all(root, '[aria-label="Attention L2H1"]')).toEqual([card]);
    key(cell, "Escape");
    expect(model.state.heads).toEqual([]);
    expect(all(root, ".rs-card[role=region]")).toHaveLength(0);
  });

  it("follows Python", async () => {
    const { root, model, settled } = await open();
    await settled();
    model.set("heads", ["L1H0", "L0H1"]);
    expect(names(all(root, ".rs-card[role=region]"))).toEqual(["Attention L1H0", "Attention L0H1"]);
    model.set("heads", ["L0H1"]);
    expect(names(all(root, ".rs-card[role=region]"))).toEqual(["Attention L0H1"]);
  });

  it("shows how many tokens were treated as padding; a click counts them as real, another undoes it", async () => {
    const plain = recordedKernel();
    const { root, model, settled } = await open({}, (ask) => {
      const answer = plain(ask);
      if ("reply" in answer && answer.reply.kind === "describe")
        Object.assign(answer.reply, { last: [3, 4], padding: 3 });
      if (ask.kind !== "tokens" || !("reply" in answer) || answer.reply.kind !== "tokens") return answer;
      if (ask.padding === "none" || ask.prompt === null) return answer;
      const real = ask.prompt === 0 ? 4 : 5;
      return {
        reply: { ...answer.reply, tokens: answer.reply.tokens.map((token, i) => ({ ...token, padding: i >= real })) },
      };
    });
    await settled();
    const beside = (): string => text(root.querySelector(".rs-strip-note"));
    const click = (): void => root.querySelector<HTMLElement>(".rs-count-padding")?.click();
    const read = (): string | undefined => all(root, '.rs-token[aria-selected="true"]')[0]?.dataset["position"];
    await vi.waitFor(() =>
      expect(beside()).toBe("2 tokens of this prompt treated as padding, 3 in all · count them as real"),
    );
    expect(read()).toBe("3");
    const before = model.asked.length;
    click();
    await settled();
    expect(model.get("padding")).toBe("none");
    expect(beside()).toBe("3 tokens of all prompts that may be padding count as real · leave them out");
    expect(read()).toBe("5");
    const asked = model.asked.slice(before).map(({ ask }) => ask);
    expect(asked.map(({ kind }) => kind)).toEqual(expect.arrayContaining(["tokens", "attribute"]));
    expect(asked.every(({ padding }) => padding === "none")).toBe(true);
    click();
    await settled();
    expect(read()).toBe("3");
    expect(model.get("padding")).toBe("found");
    root.querySelector<HTMLElement>('[aria-label="Next prompt"]')?.click();
    await vi.waitFor(() => expect(beside()).toMatch(/^1 token of this prompt treated as padding, 3 in all/));
    all(root, '[aria-label="Prompt"] button')[0]?.click();
    await vi.waitFor(() => expect(beside()).toBe("3 tokens treated as padding · count them as real"));
  });

  it("warns without a click that the model attended to padding, until the tokens count as real", async () => {
    const plain = recordedKernel();
    const sentence = "The model was run without a mask.";
    const { root, settled } = await open({ prompt: null }, (ask) => {
      const answer = plain(ask);
      if ("reply" in answer && answer.reply.kind === "describe") Object.assign(answer.reply, { padding: 3 });
      if ("reply" in answer && answer.reply.kind === "attribute" && ask.padding !== "none")
        Object.assign(answer.reply, { warnings: ["attended-to-padding"], notes: [sentence] });
      return answer;
    });
    await settled();
    const warning = (): Element | null => root.querySelector(".rs-badge-text .rs-warning");
    expect(text(warning())).toBe("⚠ the model attended to padding");
    expect(warning()?.getAttribute("aria-label")).toBe("warning: the model attended to padding");
    expect(text(root.querySelector(".rs-strip-note"))).toBe(
      "3 tokens treated as padding, but the model attended to them: these are not the values of the prompts alone · " +
        "count them as real",
    );
    warning()?.dispatchEvent(new MouseEvent("click", { bubbles: true }));
    expect(all(root, ".rs-reckoning li").map(text)).toEqual([sentence]);
    root.querySelector<HTMLElement>(".rs-count-padding")?.click();
    await settled();
    expect(warning()).toBeNull();
    expect(text(root.querySelector(".rs-strip-note"))).toBe(
      "3 tokens that may be padding count as real · leave them out",
    );
  });

  it("has the notes of a card beside its picture, where no button takes their room", async () => {
    const plain = recordedKernel();
    const { root, settled } = await open({ heads: ["L0H1"] }, (ask) => {
      const answer = plain(ask);
      if ("reply" in answer && answer.reply.kind === "attention") Object.assign(answer.reply, { notes: ["Assumed."] });
      return answer;
    });
    await settled();
    const chip = root.querySelector<HTMLElement>(".rs-card[role=region] .rs-axis-from .rs-card-note");
    expect([text(chip), chip?.title, chip?.closest("[aria-hidden]")]).toEqual(["note", "Assumed.", null]);
    chip?.dispatchEvent(new Event("focus"));
    expect(text(root.querySelector(".rs-sentence"))).toBe("Assumed.");
  });

  it("locks a token and unlocks it", async () => {
    const { root, model, settled } = await open();
    await settled();
    const option = root.querySelector<HTMLElement>('[data-position="2"]');
    option?.click();
    expect([model.state.position, option?.getAttribute("aria-selected")]).toEqual([2, "true"]);
    key(option, "Escape");
    expect(model.state.position).toBe("last");
  });

  it("undoes Esc with Ctrl+Z, step by step, and reports what was restored; not in a text field", async () => {
    const { root, model, settled } = await open({ heads: ["L0H1", "L1H0"], position: 2, ranking: "neurons", layer: 1 });
    await settled();
    const said = (): string => text(root.querySelector(".rs-sentence"));
    const [token, line] = [root.querySelector('[data-position="2"]'), root.querySelector(".rs-ranking [data-at]")];
    const cell = root.querySelector<HTMLElement>('[aria-label^="L2H1 "]');
    const undo = (from: Element | null, more: KeyboardEventInit = { ctrlKey: true }): boolean | undefined =>
      from?.dispatchEvent(new KeyboardEvent("keydown", { key: "z", bubbles: true, cancelable: true, ...more }));
    const state = (): unknown[] => [
      model.state.heads,
      model.state.position,
      model.state.layer,
      names(all(root, ".rs-card[role=region]")),
    ];
    const before = state();
    for (const place of [line, token, cell]) key(place, "Escape");
    expect(said()).toBe("Cleared: L0H1 and L1H0. Ctrl+Z restores them.");
    expect(state()).toEqual([[], "last", null, []]);
    cell?.click(); // a head that was pinned in the meantime stays
    expect(undo(cell, { ctrlKey: true, shiftKey: true })).toBe(true); // not the undo key
    expect(undo(cell)).toBe(false);
    expect(said()).toBe("Restored: L0H1 and L1H0. Ctrl+Z goes one step further back.");
    expect(model.state.heads).toEqual(["L0H1", "L1H0", "L2H1"]);
    cell?.click();
    undo(cell, { metaKey: true });
    expect(said()).toBe("Restored: position 2, “·John”. Ctrl+Z goes one step further back.");
    undo(cell);
    expect([said(), ...state()]).toEqual(["Restored: layer 1.", ...before]);
    undo(cell);
    expect(said()).toBe("Nothing to restore.");
    key(cell, "Escape");
    const field = document.createElement("input");
    root.append(field);
    expect(undo(field)).toBe(true);
    expect(model.state.heads).toEqual([]);
  });

  it("restores what exists in the cache in view", async () => {
    const store = new Store();
    const facts = {
      kind: "describe" as const,
      name: "cache",
      model: "",
      layers: 12,
      heads: 12,
      prompts: 1,
      positions: 15,
      dtype: "",
      device: "",
      bytes: 0,
      missing: [],
      last: [14],
      has_tokens: true,
    };
    store.facts.value = facts;
    store.headRows.value = { rows: new Float32Array(144) } as Attribution;
    store.heads.value = ["L9H9", "L0H1"];
    store.escape(false);
    store.position.value = 10;
    store.escape(true);
    store.facts.value = { ...facts, layers: 1, positions: 8 }; // a smaller cache was chosen
    store.undo();
    expect([store.heads.value, store.position.value, store.sentence.value]).toEqual([
      ["L0H1"],
      "last",
      ["Restored: L0H1."],
    ]);
  });

  it("does not treat the last position set from Python as a lock, and requests nothing twice for it", async () => {
    const { root, model, settled } = await open();
    await settled();
    const asked = model.asked.length;
    model.set("position", 5); // panel.py can write the index in place of None
    await settled();
    expect(model.asked.length).toBe(asked);
    expect(root.querySelector(".rs-locked")).toBeNull();
    expect(root.querySelector('[data-position="5"]')?.getAttribute("aria-selected")).toBe("true");
    root.querySelector<HTMLElement>('[data-position="2"]')?.click();
    expect(model.state.position).toBe(2);
    root.querySelector<HTMLElement>('[data-position="2"]')?.click();
    expect(model.state.position).toBe("last");
  });

  it("sets one prompt's answer from the list, with the keyboard", async () => {
    const both = [...demoTarget().contrasts, ...demoTarget().contrasts];
    const { root, model, settled } = await open({ wire_target: { contrasts: both, direction: null } });
    await settled();
    root.querySelector<HTMLElement>('[aria-label="answer: ·Mary"]')?.click();
    const input = root.querySelector('input[role="combobox"]');
    await vi.waitFor(() => expect(all(root, ".rs-option")).toHaveLength(10));
    key(input, "ArrowDown");
    const chosen = root.querySelector('.rs-option[aria-selected="true"] .rs-name')?.textContent;
    key(input, "Enter");
    expect(root.querySelector('[data-side="answer"]')?.textContent).toBe(chosen);
    expect(model.state.wire_target.contrasts[1]).toEqual(both[1]);
    expect(model.state.wire_target.contrasts[0]).not.toEqual(both[0]);
  });

  it("takes a variable of the notebook as the target, and reports what was read differently, or refused", async () => {
    const listed = ["names", "prompts", "direction", "<b>x", "y1", "y2"].map((name) => ({ name, words: "2 tokens" }));
    const { root, model, settled } = await open({}, recordedKernel({ variables: listed }));
    await settled();
    const rows = (): string[] => all(root, FOUND).map(text);
    const open_ = async (): Promise<HTMLInputElement> => {
      root.querySelector<HTMLElement>('[data-side="answer"]')?.click();
      const input = root.querySelector<HTMLInputElement>('input[role="combobox"]');
      await vi.waitFor(() => expect(rows()).toHaveLength(5));
      return input ?? expect.fail();
    };
    const typed = (input: HTMLInputElement, value: string): void => {
      input.value = value;
      input.dispatchEvent(new Event("input"));
    };
    let input = await open_();
    expect(rows()[3]).toBe("<b>x2 tokens");
    expect(text(root.querySelector(".rs-combobox-place"))).toContain("1 more in the notebook: type part of the name.");
    typed(input, "PROMPT");
    expect(rows()).toEqual(["prompts2 tokens"]);
    key(input, "Enter"); // typed text means a token, and this is not one; a variable must be chosen
    const before = model.state.wire_target;
    all(root, FOUND)[0]?.click();
    await vi.waitFor(() =>
      expect(text(root.querySelector(".rs-broken[role=alert]"))).toContain("is 2 tokens in this model"),
    );
    expect(model.state.wire_target).toBe(before);
    typed(input, "names");
    await vi.waitFor(() => expect(rows()).toEqual(["names2 tokens"]));
    key(input, "ArrowUp");
    expect(text(root.querySelector('.rs-option[aria-selected="true"]'))).toBe("names2 tokens");
    key(input, "Enter");
    await vi.waitFor(() => expect(text(root.querySelector(".rs-target-said"))).toContain("reads “amy” as “·Amy”"));
    expect(model.state.wire_target.contrasts.map((c) => c.answer[0]?.text)).toEqual([" Amy"]);
    root.querySelector<HTMLElement>('[aria-label="Dismiss"]')?.click();
    expect(root.querySelector<HTMLElement>(".rs-target-said")?.hidden).toBe(true);
    input = await open_();
    all(root, FOUND)[2]?.click();
    await vi.waitFor(() => expect(text(root.querySelector(".rs-target-line"))).toContain("value along direction"));
    expect(model.state.wire_target.direction).toBe("direction-1");
  });

  it("shows why a view cannot be drawn in place of that view, and never over the controls", async () => {
    const honest = recordedKernel();
    let refuse = false;
    const { root, model, settled } = await open({}, (ask) =>
      refuse && ask.kind === "attribute"
        ? { failure: { code: "missing", message: "Keep hook_z in the cache." } }
        : honest(ask),
    );
    await settled();
    const before = names(all(root, '[role="gridcell"]'));
    refuse = true;
    model.set("prompt", 1);
    const places = [
      ".rs-lens-place .rs-view-trouble",
      ".rs-layers-place .rs-view-trouble",
      ".rs-map-refusal",
      ".rs-rank .rs-none",
    ];
    await vi.waitFor(() =>
      expect(places.map((place) => root.querySelector(place)?.textContent)).toEqual(
        places.map(() => "Keep hook_z in the cache."),
      ),
    );
    expect(root.querySelector(".rs-notices")?.textContent).toBe("");
    await vi.waitFor(() => expect(root.dataset["state"]).toBe("ready"));
    // The values are no longer described as those of this selection.
    expect(names(all(root, '[role="gridcell"]'))).toEqual(before.map((name) => `${name?.split(" ")[0]} not known`));
    expect(root.querySelector('[role="status"]')?.textContent).toBe("the rows cannot be added up");
  });

  it("shows that it waits when the kernel is silent", async () => {
    const { root } = await open({}, recordedKernel(), () => Infinity);
    expect(root.dataset["state"]).toBe("loading");
    await vi.waitFor(() => expect(root.textContent).toContain("Waiting for the kernel"), 3000);
  });

  it("leaves nothing behind", async () => {
    const { model, el, close, settled } = await open({ heads: ["L0H0"] });
    await settled();
    expect(model.listeners()).toBeGreaterThan(0);
    close();
    expect([model.listeners(), el.childElementCount]).toEqual([0, 0]);
    const asked = model.asked.length;
    model.set("prompt", 1);
    expect(model.asked.length).toBe(asked);
  });
});

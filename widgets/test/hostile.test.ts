// Whatever strings the kernel sends: no text and no tooltip holds a character that reverses the direction of others.
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import type { Kernel } from "../dev/fake-model";
import { demoTarget, recordedKernel } from "../dev/recorded-kernel";
import type { Traits } from "../src/entry/anywidget";
import { innerTarget, throughHead } from "../src/state/target";
import { all, open } from "./open";

const REVERSE = "\u202e";
/** The fields of replies that hold words, not names that the page compares. */
const WORDS = new Set([
  "notes", "meaning", "formula", "site", "read", "cls", "measured_from", "replayed", "replaced_by", "missing", "model",
  "dtype", "device", "text", "message", "words", "how",
]); // biome-ignore format: a table

function reversed(value: unknown, isWord = false): unknown {
  if (typeof value === "string") return isWord ? `${value}${REVERSE}gnirts` : value;
  if (Array.isArray(value)) return value.map((item) => reversed(item, isWord));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, item]) => {
      const given = name === "notes" && Array.isArray(item) && item.length === 0 ? ["A note."] : item;
      return [name, reversed(given, WORDS.has(name))];
    }),
  );
}

const honest = recordedKernel();
const hostile: Kernel = (ask) => {
  const outcome = honest(ask);
  if ("failure" in outcome) return outcome;
  const reply = reversed(outcome.reply) as typeof outcome.reply;
  if (reply.kind === "attribute" && ask.kind === "attribute" && ask.prompt === 1) reply.missing = [`MLPs${REVERSE}`];
  if (reply.kind === "describe") reply.lens = { name: `tuned${REVERSE}`, formula: `h + A h${REVERSE}` };
  if (reply.kind === "attention" && ask.kind === "attention" && ask.head === 1) reply.parts = []; // a note says why
  return { ...outcome, reply };
};

/** Where the page has the character: elements with their text or attribute. */
function found(root: HTMLElement): string[] {
  return [root, ...all(root, "*")].flatMap((node) => [
    ...[...node.attributes]
      .filter(({ value }) => value.includes(REVERSE))
      .map(({ name }) => `${node.className} ${name}`),
    ...[...node.childNodes]
      .filter((one) => one.nodeType === 3 && one.textContent?.includes(REVERSE))
      .map(() => `${node.className} text`),
  ]);
}

const score = innerTarget({ kind: "attention", layer: 2, head: 1, destination: 5, source: 2 });
const feature = innerTarget({
  kind: "direction",
  key: `sae${REVERSE}`,
  at: "1_pre",
  feature: { sae: "sae", index: 1, read: `blocks.1${REVERSE}`, norm: "", unweighted: false, offset: 0 },
});

describe("characters that reverse the text", () => {
  beforeAll(() => {
    vi.stubGlobal(
      "IntersectionObserver",
      class {
        constructor(readonly tell: (entries: unknown[]) => void) {}
        observe(target: Element): void {
          const boxes = { boundingClientRect: new DOMRect(), intersectionRect: new DOMRect(), rootBounds: null };
          queueMicrotask(() => this.tell([{ target, isIntersecting: true, intersectionRatio: 1, ...boxes }]));
        }
        unobserve(): void {}
        disconnect(): void {}
      },
    );
  });
  afterAll(() => void vi.unstubAllGlobals());

  it.each<[string, Partial<Traits>]>([
    ["the cards", { heads: ["L1H0", "L1H1"] }],
    ["thumbnails", { presentation: "all" }],
    ["the text", { presentation: "text", heads: ["L1H0"] }],
    ["rows that are not complete", { prompt: 1 }],
    ["a score", { score: "copying" }],
    ["positions", { tab: "positions" }],
    ["the lens of positions", { tab: "positions", by: "accumulated", transport: "transported" } as Partial<Traits>],
    ["the token lens", { tab: "token-lens", transport: "transported" } as Partial<Traits>],
    ["prompts", { tab: "prompts", prompt: null }],
    ["segments", { tab: "segments", segments: "turn", heads: ["L1H0"] } as Partial<Traits>],
    ["features", { tab: "features", feature: 1 } as Partial<Traits>],
    ["neurons", { ranking: "neurons" }],
    ["why a head reads", { tab: "why", wire_target: score }],
    ["why a feature is on", { tab: "why", wire_target: feature }],
    ["what a head moves", { tab: "why", wire_target: throughHead(demoTarget(), { layer: 2, head: 1, source: 2 }) }],
    ["two runs", { tab: "runs", against: { cache: null, prompt: 1 } } as Partial<Traits>],
    ["an effect", { effect: "total" } as Partial<Traits>],
  ])("are written as codes: %s", async (_, traits) => {
    const { root, settled } = await open(traits, hostile);
    await settled();
    await vi.waitFor(() => expect(root.querySelector(".rs-waiting")).toBeNull());
    all(root, ".rs-badge-text")[0]?.click();
    await vi.waitFor(() => expect(root.outerHTML).toContain("‹U+202E›"));
    expect(found(root)).toEqual([]);
  });
});

// A snapshot from outside. Data that is not a snapshot, or could not be drawn quickly, is refused before anything is
// drawn.
import { beforeAll, describe, expect, it, vi } from "vitest";
import { columnsOf } from "../dev/component-table";
import recording from "../dev/recording.json";
import { SNAPSHOT_EVENT } from "../src/snapshot/recorder";
import { packed, type Snapshot } from "../src/snapshot/snapshot";
import { checkSnapshot } from "../src/snapshot/snapshot-check";
import { componentsOf } from "../src/wire/components";
import type { ComponentTable } from "../src/wire/protocol.gen";
import { open } from "./open";

type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
type Path = (string | number)[];
let whole: Json;

beforeAll(async () => {
  const { root, settled } = await open({ heads: ["L1H1"], score: "previous", ranking: "neurons" });
  await settled();
  const picture = (): Snapshot | null => {
    let taken: Snapshot | null = null;
    root.dispatchEvent(
      new CustomEvent(SNAPSHOT_EVENT, { detail: { put: (snapshot: Snapshot) => (taken = snapshot) } }),
    );
    return taken;
  };
  await vi.waitFor(() =>
    expect(new Set(picture()?.entries.map(({ ask }) => ask.kind))).toEqual(
      new Set(["describe", "tokens", "attribute", "attention", "scores", "neurons"]),
    ),
  );
  whole = JSON.parse(JSON.stringify(picture())) as Json;
});

/** All paths in a value; of a list, only those in its first element, but of `entries` those in all elements. */
function paths(value: Json, at: Path = []): Path[] {
  const inner = Array.isArray(value)
    ? Object.entries(value.slice(0, at.at(-1) === "entries" ? undefined : 1))
    : typeof value === "object" && value !== null
      ? Object.entries(value)
      : [];
  return [at, ...inner.flatMap(([name, one]) => paths(one, [...at, Array.isArray(value) ? Number(name) : name]))];
}

function changed(at: Path, to: (was: Json) => Json): Json {
  const copy = structuredClone(whole);
  if (at.length === 0) return to(copy);
  let place = copy as Record<string | number, Json>;
  for (const step of at.slice(0, -1)) place = place[step] as Record<string | number, Json>;
  place[at.at(-1) as string] = to(place[at.at(-1) as string] as Json);
  return copy;
}

/** The index of the entry of a kind. */
const entry = (kind: string, by?: string): number =>
  (whole as { entries: { ask: { kind: string; by?: string } }[] }).entries.findIndex(
    ({ ask }) => ask.kind === kind && (by === undefined || ask.by === by),
  );
const reply = (kind: string, field: string, to: Json | ((was: Json) => Json), by?: string): Json =>
  changed(["entries", entry(kind, by), "reply", field], typeof to === "function" ? to : () => to);
const rows = (to: (was: ComponentTable) => ComponentTable): Json =>
  reply("attribute", "components", (was) => to(was as unknown as ComponentTable) as unknown as Json, "layer");
/** The snapshot with a recorded request and its reply, which can be changed. */
const also = (kind: string, to: (reply: Record<string, Json>) => Record<string, Json> = (reply) => reply): Json =>
  changed(["entries"], (was) => {
    const one = recording.entries.find(({ ask }) => ask.kind === kind) as { reply: Record<string, Json> } | undefined;
    if (!one)
      throw new Error(`dev/recording.json has no request “${kind}”: add it to _requests_of_tests in recorded.py.`);
    return [...(was as Json[]), { ...one, reply: to(one.reply) }];
  });
const WRONG_ROWS = /“attribute” entry has values that do not match their names/;
const floats = (...values: number[]): string => packed(new DataView(new Float32Array(values).buffer));
const nested = (depth: number): Json => Array.from({ length: depth }).reduce<Json>((inner) => [inner], 1);

const ODD: Record<string, Json> = {
  "a negative number": -1,
  "a fraction": 0.5,
  "an enormous number": 1e308,
  "a list": [],
  "an object": {},
  "a list of lists": nested(5),
  "a lit template": { _$litType$: 1, strings: ["<img src=x onerror=alert(1)>"], values: [] },
  "a lit directive": { _$litDirective$: {}, values: [] },
  "a listener": { handleEvent: "alert(1)" },
  truth: true,
  nothing: null,
};
const kindOf = (value: Json | undefined): string =>
  value === null || value === undefined ? "nothing" : Array.isArray(value) ? "list" : typeof value;

describe("a snapshot from outside", () => {
  it("is accepted if it is valid", () => expect(checkSnapshot(structuredClone(whole)).trouble).toBeNull());

  it.each(["segment-heads", "positions", "pairs", "features"])("is accepted with %s", (kind) =>
    expect(checkSnapshot(also(kind)).trouble).toBeNull(),
  );

  it("has the right types if it is accepted, whatever value any of its fields has", () => {
    const wrong: string[] = [];
    for (const path of paths(whole)) {
      for (const [what, value] of Object.entries(ODD)) {
        const { snapshot, trouble } = checkSnapshot(changed(path, () => structuredClone(value)));
        if (trouble !== null && !/^(it|its|heads|what|a map) .{5,120}$/.test(trouble))
          wrong.push(`${path.join(".")} as ${what}: said ${trouble}`);
        if (!snapshot) continue;
        let [was, is] = [whole, snapshot as unknown as Json | undefined];
        for (const step of path)
          [was, is] = [(was as Record<string, Json>)[step] as Json, (is as Record<string, Json> | undefined)?.[step]];
        if (is !== undefined && is !== null && kindOf(is) !== kindOf(was) && was !== null)
          wrong.push(`${path.join(".")} as ${what} became ${kindOf(is)}`);
        if (is !== null && typeof is === "object" && Object.keys(is).some((name) => /^_\$|handleEvent/.test(name)))
          wrong.push(`${path.join(".")} as ${what} was taken as it is`);
      }
    }
    expect(wrong).toEqual([]);
  });

  it.each<[string, () => Json, RegExp]>([
    ["with 3,000 layers", () => reply("describe", "layers", 3000), /3000 layers/],
    [
      "with more parallel layers than layers",
      () => reply("describe", "parallel", Array(9).fill(0)),
      /“describe” entry/,
    ],
    ["with 3,000 heads a layer", () => reply("describe", "heads", 3000), /3000 heads/],
    [
      "with 1,000 × 1,000 heads",
      () =>
        changed(["entries", entry("describe"), "reply"], (was) => ({ ...(was as object), layers: 1000, heads: 1000 })),
      /1000000 layers × heads/,
    ],
    [
      "with more heads than rows",
      () => reply("describe", "heads", 40),
      /“attribute” entry has values that do not match their names/,
    ],
    [
      "with more tokens than positions",
      () => reply("tokens", "tokens", (was) => [...(was as Json[]), ...(was as Json[])]),
      /“tokens” entry has values that do not match their names/,
    ],
    [
      "with 30,000 pinned heads",
      () => changed(["selection", "heads"], () => Array.from({ length: 30_000 }, (_, i) => `L${i}H0`)),
      /“selection.heads”/,
    ],
    [
      "with a pinned head that the model does not have",
      () => changed(["selection", "heads"], () => ["L9H0"]),
      /pinned/,
    ],
    [
      "with a ranked head that the model does not have",
      () => also("segment-heads", (was) => ({ ...was, heads: (was["heads"] as Json[]).map(() => "L9H9") })),
      /“segment-heads” entry has values that do not match their names/,
    ],
    ...["positions", "pairs", "features"].map((kind): [string, () => Json, RegExp] => [
      `with a row for a head that the model does not have, in “${kind}”`,
      () => {
        const name = { positions: "components", pairs: "key", features: "row" }[kind] ?? "";
        const rows = (was: Json | undefined): Json[] => (was as { kind: Json[] }).kind;
        return also(kind, (was) => ({
          ...was,
          [name]: columnsOf(rows(was[name]).map(() => "L0H9")) as unknown as Json,
        }));
      },
      new RegExp(`“${kind}” entry has `),
    ]),
    ["with a million prompts", () => reply("describe", "prompts", 1_000_000), /1000000 prompts/],
    ["with a ranking of a million rows", () => changed(["selection", "top_k"], () => 1e6), /“selection.top_k”/],
    ["nested 5,000 deep", () => changed(["selection", "target"], () => nested(5000)), /nested too deeply/],
    ["of half a million values", () => changed(["lacks"], () => new Array<Json>(500_000).fill(0)), /too large/],
    ["with a name of 4 MB", () => changed(["name"], () => "x".repeat(4_000_000)), /too large/],
    [
      "with more names than values",
      () => rows((was) => columnsOf([...componentsOf(was).map(({ label }) => label), "embed"])),
      /“attribute” entry has values that do not match their names/,
    ],
    ["with rows of an unknown kind", () => rows((was) => ({ ...was, kind: was.kind.map(() => 99) })), WRONG_ROWS],
    ["with more layers than rows", () => rows((was) => ({ ...was, layer: [...was.layer, 0] })), WRONG_ROWS],
    ["with fewer indices than rows", () => rows((was) => ({ ...was, index: was.index.slice(1) })), WRONG_ROWS],
    [
      "with rows of layers that the model does not have",
      () => rows((was) => ({ ...was, layer: was.layer.map((at) => at && at + 99) })),
      WRONG_ROWS,
    ],
    [
      "with rows that lack their layer",
      () => rows((was) => ({ ...was, layer: was.layer.map(() => null) })),
      WRONG_ROWS,
    ],
    [
      "with an index for rows that have none",
      () => rows((was) => ({ ...was, index: was.index.map(() => 0) })),
      WRONG_ROWS,
    ],
    [
      "with a kind that does not exist",
      () => rows((was) => ({ ...was, kinds: ["<img src=x>"] as never })),
      /“components.kinds”/,
    ],
    [
      "whose attention spans other positions",
      () => reply("attention", "rows", { start: 0, stop: 1e9 }),
      /positions that its prompts do not have/,
    ],
    [
      "whose attention is of 100,000 positions",
      () => reply("attention", "positions", 100_000),
      /has the reply to another request/,
    ],
    ["whose attention has a step of 0", () => reply("attention", "step", 0), /a map has the wrong number of cells/],
    [
      "whose map is shorter than it says",
      () => changed(["entries", entry("attention"), "buffers", 0], () => floats(1, 2)),
      /“attention” entry has values that do not match their names/,
    ],
    [
      "whose buffers are not base64",
      () => changed(["entries", entry("scores"), "buffers", 0], () => "<img src=x>"),
      /“buffers”/,
    ],
    ["whose reply is another’s", () => reply("attention", "head", 0), /has the reply to another request/],
    [
      "without its head map",
      () => changed(["entries"], (was) => (was as Json[]).filter((_, i) => i !== entry("attribute", "head"))),
      /no “attribute head” values/,
    ],
    [
      "with two caches",
      () => changed(["entries"], (was) => [...(was as Json[]), (was as Json[])[entry("describe")] as Json]),
      /its cache exactly once/,
    ],
    ["with a date that is not a date", () => changed(["saved"], () => "<b>today</b>"), /“saved”/],
  ])("is refused %s", (_, made, why) => {
    const { snapshot, trouble } = checkSnapshot(made());
    expect(snapshot).toBeNull();
    expect(trouble).toMatch(why);
  });

  it("keeps no code, no page, and no unknown field", () => {
    const entries = [
      {
        ask: { kind: "code", picture: "heads", shown: {} },
        reply: { kind: "code", code: "import os; os.system('x')" },
      },
      { ask: { kind: "page", shown: {} }, reply: { kind: "page", name: "x.html" }, buffers: ["PHNjcmlwdD4="] },
      { ask: { kind: "suggest" }, reply: { kind: "suggest", predictions: [] } },
    ];
    const made = JSON.parse(
      JSON.stringify(changed(["entries"], (was) => [...(was as Json[]), ...(entries as unknown as Json[])])).replace(
        /^\{/,
        '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},',
      ),
    ) as Json;
    const { snapshot } = checkSnapshot(made);
    expect(
      snapshot?.entries
        .map(({ ask }) => ask.kind)
        .filter((kind) => kind === "code" || kind === "page" || kind === "suggest"),
    ).toEqual([]);
    expect(Object.keys(snapshot ?? {}).sort()).toEqual([
      "defaults",
      "entries",
      "lacks",
      "name",
      "preview",
      "saved",
      "selection",
    ]);
    expect(({} as { polluted?: number }).polluted).toBeUndefined();
    expect((snapshot as unknown as { polluted?: number }).polluted).toBeUndefined();
  });
});

import { signal as state } from "@preact/signals-core";
import { afterEach, expect, it, vi } from "vitest";
import { FakeLink, ROW } from "../dev/fake-link";
import { recordedKernel } from "../dev/recorded-kernel";
import { Caches } from "../src/hosts/caches";
import type { Place } from "../src/hosts/kernels";
import type { Pictures } from "../src/hosts/last-picture";
import type { LinkState } from "../src/hosts/link";
import type { Opened } from "../src/hosts/opened";
import { Sidebar } from "../src/hosts/sidebar";
import { mountView } from "../src/hosts/view";
import type { Snapshot } from "../src/snapshot/snapshot";
import { asSelection, fitting } from "../src/state/selection";
import type { CacheRow, Question } from "../src/wire/protocol.gen";
import { all, text } from "./open";

let end = new AbortController();
afterEach(() => end.abort());

function open(remembered: Opened | null | Error = null, pictures?: Pictures, standing?: LinkState) {
  end = new AbortController();
  const link = new FakeLink(recordedKernel());
  if (standing) link.state.value = standing;
  const caches = new Caches(link, end.signal);
  const kept: Opened[] = [];
  const places = {
    focused: state<Place | null>({ path: "a.ipynb", label: "a.ipynb" }),
    running: state<Place[]>([]),
    picked: state<string | null>(null),
  };
  const sidebar = new Sidebar(
    document.body,
    {
      places,
      visible: state(true),
      caches: () => caches,
      remembered: async () => {
        if (remembered instanceof Error) throw remembered;
        return remembered;
      },
      remember: (opened) => kept.push(opened),
      ...(pictures ? { pictures } : {}),
    },
    end.signal,
  );
  const root = document.querySelector<HTMLElement>(".rs-sidebar");
  if (!root) throw new Error("nothing was drawn");
  const rows = (): HTMLElement[] => all(root, '[role="list"][aria-label="Activation caches"] > [role="listitem"]');
  const panel = (): HTMLElement | null => root.querySelector('[role="region"][aria-label="Residscope"]');
  const ready = (): Promise<void> => vi.waitFor(() => expect(panel()?.dataset["state"]).toBe("ready"));
  const show = async (name = "cache"): Promise<void> => {
    await vi.waitFor(() => expect(rows().length).toBeGreaterThan(0));
    rows()
      .find((row) => text(row).startsWith(name))
      ?.querySelector("button")
      ?.click();
    await ready();
  };
  const facts = (): string => text(panel()?.querySelector(".rs-facts"));
  const act = (): HTMLButtonElement | null => panel()?.querySelector(".rs-act") ?? null;
  return { link, caches, sidebar, kept, root, rows, panel, ready, show, facts, act };
}
const changed = (row: CacheRow, ref: Partial<CacheRow["ref"]>, more: Partial<CacheRow> = {}): CacheRow => ({
  ...row,
  ...more,
  ref: { ...row.ref, ...ref },
});
const about = (asked: Question[], kind: string): Question[] => asked.filter(({ ask }) => ask.kind === kind);

it("lists a cache by its names and shows it on a click, with the model's own target", async () => {
  const { link, rows, show, panel, facts } = open();
  link.caches = [{ ...ROW, names: ["cache", 'runs["clean"]'], missing: ["attn.hook_v"] }];
  await show();
  expect(text(rows()[0])).toMatch(
    /^cache also runs\["clean"\] tiny · 3 × 2 heads · 2 prompts × 6 positions · float32 on cpu · 41 MB · first seen just now without attn.hook_v/,
  );
  expect(facts()).toMatch(/^cache /);
  expect(about(link.asked, "target")).toHaveLength(1);
  expect(link.asked.filter(({ ask }) => ask.kind !== "caches").every(({ cache }) => cache?.id === "c1")).toBe(true);
  expect(all(panel() as HTMLElement, '[role="gridcell"]')).toHaveLength(6);
});

it.each([
  ["its variable was rebound", [changed(ROW, { id: "c2" })], "now another cache", "Show the new one"],
  ["it was changed in place", [changed(ROW, { state: "2.1" }, { changed: true })], "changed in place", "Read it again"],
  ["its weights were changed", [changed(ROW, { state: "1.2" }, { weights_changed: true })], "weights", "Read it again"],
])("keeps the picture of a cache if %s, and shows the new cache on a click", async (_, now, words, label) => {
  const { link, show, facts, act, panel, rows, ready } = open();
  await show();
  all(panel() as HTMLElement, '[role="gridcell"]')[3]?.click();
  const picture = panel();
  link.cell(...now);
  await vi.waitFor(() => expect(facts()).toContain(words));
  expect(
    rows()
      .map((row) => text(row))
      .join(),
  ).toContain(words);
  expect(panel()).toBe(picture);
  expect(act()?.textContent).toBe(label);
  act()?.click();
  await vi.waitFor(() => expect(act()).toBeNull());
  await ready();
  expect(panel()).toBe(picture);
  expect(all(picture as HTMLElement, '[aria-selected="true"][role="gridcell"]')).toHaveLength(1);
  expect(link.asked.at(-1)?.cache).toEqual(now[0]?.ref);
});

it.each([
  ["before the default target of the next one is known", (link: FakeLink) => (link.isSilent = true)],
  ["if the next one is gone at once", (link: FakeLink) => (link.caches = [])],
])("asks the cache on screen %s", async (_, hinder) => {
  const { link, show, act, panel } = open();
  await show();
  link.cell(changed(ROW, { id: "c2" }));
  await vi.waitFor(() => expect(act()?.textContent).toBe("Show the new one"));
  hinder(link);
  act()?.click();
  await new Promise((done) => setTimeout(done, 20));
  expect(about(link.asked, "target").at(-1)?.cache?.id).toBe("c2");
  all(panel() as HTMLElement, '[role="gridcell"]')[1]?.click();
  await vi.waitFor(() => expect(about(link.asked, "attention").map(({ cache }) => cache?.id)).toContain("c1"));
  expect(about(link.asked, "attention").every(({ cache }) => cache?.id === "c1")).toBe(true);
});

it("lists again until the kernel has compared all caches, and keeps the same rows meanwhile", async () => {
  const { link, caches, rows } = open();
  const many = Array.from({ length: 5 }, (_, n) => ({
    ...ROW,
    ref: { id: `c${n}`, state: "1.1" },
    names: [`c[${n}]`],
  }));
  link.caches = many;
  await vi.waitFor(() => expect(rows()).toHaveLength(5));
  const [before, shown] = [link.asked.length, caches.rows.value];
  link.unread = 3;
  link.cell(...many.map((row) => ({ ...row, age: 9 })));
  await vi.waitFor(() => expect(link.asked).toHaveLength(before + 4));
  expect(caches.rows.value).not.toBe(shown); // the first list after a cell has the ages of the caches
  expect(about(link.asked, "caches").map(({ ask }) => ask.kind === "caches" && ask.since)).toEqual([0, 0, 7, 7, 7]);
  const first = caches.rows.value;
  await new Promise((settle) => setTimeout(settle));
  expect(link.asked).toHaveLength(before + 4);
  expect(caches.rows.value).toBe(first);
  // A later list finds a change.
  link.caches = many.with(4, changed(many[4] as CacheRow, { state: "2.1" }, { changed: true }));
  await caches.refresh(7);
  expect(caches.rows.value[4]?.changed).toBe(true);
});

it("shows another name of its cache if the variable is bound to another cache, and requests no values", async () => {
  const { link, show, facts, act, panel } = open();
  await show();
  // After each cell, caches are listed, and the shown one is described again: there may be another SAE.
  const values = () => link.asked.filter(({ ask }) => ask.kind !== "caches" && ask.kind !== "describe").length;
  const [asked, picture] = [values(), panel()];
  link.cell(changed(ROW, { id: "c2" }), { ...ROW, names: ["run.cache"] });
  await vi.waitFor(() => expect(facts()).toContain("run.cache"));
  expect(facts()).not.toContain("another cache");
  expect(act()).toBeNull();
  expect(panel()).toBe(picture);
  expect(values()).toBe(asked);
});

it("keeps the row and the picture of a deleted cache, and shows the status", async () => {
  const { link, show, facts, act, rows, panel } = open();
  await show();
  link.cell();
  await vi.waitFor(() => expect(facts()).toContain("was deleted: no variable refers to it"));
  expect(act()).toBeNull();
  expect(text(rows()[0])).toContain("deleted");
  all(panel() as HTMLElement, '[role="gridcell"]')[2]?.click(); // no second message
  await vi.waitFor(() =>
    expect(text(panel()?.querySelector('[aria-label="Attention L1H0"]'))).toContain(
      "was not read before the cache became unavailable",
    ),
  );
  expect(text(panel()?.querySelector(".rs-alert"))).toBe("");
});

it("keeps the picture over a restart, and takes the new cache of the same name", async () => {
  const { link, show, facts, act, ready } = open();
  await show();
  link.restart();
  await vi.waitFor(() => expect(facts()).toContain("its kernel does not answer"));
  link.attach();
  await vi.waitFor(() =>
    expect(facts()).toContain(
      "was lost when the kernel restarted. The last picture stays. Run the cell that makes cache again",
    ),
  );
  link.cell(changed(ROW, { id: "c9" }));
  await vi.waitFor(() => expect(act()?.textContent).toBe("Show the new one"));
  act()?.click();
  await vi.waitFor(() => expect(facts()).not.toContain("went with"));
  await ready();
});

it("claims nothing about a kernel that answers again and has not listed its caches yet", async () => {
  const { link, show, facts, panel } = open();
  await show();
  link.restart();
  link.isSilent = true;
  link.attach();
  await new Promise((done) => setTimeout(done)); // the request for the list is in flight
  expect(facts()).toContain("its kernel does not answer");
  expect(text(panel()?.querySelector('[role="status"]'))).not.toContain("✓");
});

it.each(["attention", "positions", "token-lens"])(
  "asks again what was lost with the link, in the tab %s",
  async (tab) => {
    const { link, show, panel, ready } = open({
      path: "a.ipynb",
      name: "cache",
      selection: asSelection({ tab, heads: ["L1H1"], prompt: 0, effect: "total", against: { prompt: 1 } }),
    });
    await show();
    link.isSilent = true;
    const answered = link.asked.length;
    all(panel() as HTMLElement, '[aria-label="Next prompt"]')[0]?.click();
    await new Promise((done) => setTimeout(done, 50));
    const values = (asked: Question[]): string[] =>
      asked.filter(({ ask }) => ask.kind !== "caches").map(({ ask }) => JSON.stringify(ask));
    const unanswered = values(link.asked.slice(answered));
    expect(unanswered.length).toBeGreaterThan(5);
    link.lose();
    await new Promise((done) => setTimeout(done, 50));
    const lost = link.asked.length;
    link.isSilent = false;
    link.attach();
    await vi.waitFor(() => expect(values(link.asked.slice(lost))).toEqual(expect.arrayContaining(unanswered)));
    await ready();
    expect(text(panel())).not.toContain("before the cache became unavailable");
  },
);

it("shows in place of the view that the kernel has no cache of this name, and which caches it has", async () => {
  end = new AbortController();
  const link = new FakeLink(recordedKernel());
  link.caches = [{ ...ROW, names: ["second"] }];
  const { signal } = end;
  mountView(document.body, new Caches(link, signal), { path: "a.ipynb", name: "cache", selection: null }, signal);
  const said = (): string => text(document.querySelector(".rs-absent"));
  await vi.waitFor(() => expect(said()).toMatch(/no cache named cache\. Run the cell that makes it.*holds second/));
  link.cell(ROW);
  await vi.waitFor(() => expect(document.querySelector("[data-state=ready]")).not.toBeNull());
  expect(said()).toBe("");
});

it("keeps a view's picture, without another cache's replies, and shows it until the cache is there", async () => {
  const kept: Snapshot[] = [];
  const pictures = (stored: unknown): Pictures => ({
    get: async () => stored,
    put: (_, __, picture) => kept.push(picture),
  });
  const first = open(null, pictures(null));
  first.link.caches = [ROW, { ...ROW, ref: { id: "c7", state: "1.1" }, names: ["other"] }];
  first.link.cell(...first.link.caches);
  await first.show();
  const drawn = all(first.panel() as HTMLElement, '[role="gridcell"]').map((cell) => cell.getAttribute("aria-label"));
  await vi.waitFor(() => expect(kept).toHaveLength(1), { timeout: 4000 });
  first.root.querySelector<HTMLElement>(".rs-named")?.click();
  await first.show("other");
  await vi.waitFor(() => expect(kept).toHaveLength(2), { timeout: 4000 });
  expect(kept.map(({ name }) => name)).toEqual(["cache", "other"]);
  expect(kept[1]?.entries.length).toBeLessThanOrEqual((kept[0]?.entries.length ?? 0) + 1);
  end.abort();
  const again = open(
    { path: "a.ipynb", name: "cache", selection: null },
    pictures(JSON.parse(JSON.stringify(kept[0]))),
    { kind: "none", words: "It ended." },
  );
  await again.ready();
  expect(all(again.panel() as HTMLElement, '[role="gridcell"]').map((cell) => cell.getAttribute("aria-label"))).toEqual(
    drawn,
  );
  expect(text(again.root.querySelector(".rs-saved"))).toMatch(/^Saved picture/);
  again.link.attach();
  await vi.waitFor(() => expect(again.root.querySelector(".rs-saved")).toBeNull());
  await again.ready();
  end.abort();
  const forged = open({ path: "a.ipynb", name: "cache", selection: null }, pictures({ ...kept[0], entries: [] }), {
    kind: "none",
    words: "It ended.",
  });
  await new Promise((done) => setTimeout(done, 50));
  expect(forged.panel()).toBeNull();
});

it("sends unanswered requests again when the link is renewed", async () => {
  const { link, show, panel, ready } = open();
  await show();
  link.isSilent = true;
  all(panel() as HTMLElement, '[role="gridcell"]')[1]?.click();
  await vi.waitFor(() => expect(about(link.asked, "attention").length).toBeGreaterThan(0));
  link.isSilent = false;
  link.attach();
  await ready();
});

it("shows a cache that was clicked while the kernel's connection was replaced", async () => {
  const { link, rows, panel, ready } = open();
  await vi.waitFor(() => expect(rows()).toHaveLength(1));
  link.isSilent = true;
  rows()[0]?.querySelector("button")?.click();
  const caches = link.caches;
  link.restart();
  [link.caches, link.isSilent] = [caches, false];
  link.attach();
  await vi.waitFor(() => expect(panel()).not.toBeNull());
  await ready();
});

it("restores the last view when its kernel lists the cache", async () => {
  const selection = asSelection({ heads: ["L2H1"], prompt: 1, topK: 3 });
  const { link, ready, panel, kept } = open({ path: "a.ipynb", name: "cache", selection });
  link.cell(ROW);
  await vi.waitFor(() => expect(panel()).not.toBeNull());
  await ready();
  expect(panel()?.querySelector('[aria-label="Attention L2H1"]')).not.toBeNull();
  expect(kept.at(-1)).toMatchObject({ name: "cache", selection: { heads: ["L2H1"], prompt: 1, target: null } });
});

it("opens the only cache if the host's memory fails, as if nothing was remembered", async () => {
  const { ready, panel } = open(new Error("The database cannot be read."));
  await vi.waitFor(() => expect(panel()).not.toBeNull());
  await ready();
});

it("opens a remembered view whose last picture cannot be read", async () => {
  const pictures: Pictures = { get: () => Promise.reject(new Error("no")), put: () => undefined };
  const { link, ready } = open({ path: "a.ipynb", name: "cache", selection: null }, pictures);
  link.cell(ROW);
  await ready();
});

it("requests a comparison again when the other cache has changed, and only then", async () => {
  const { link, show, panel, ready } = open();
  const other = { ...ROW, ref: { id: "c9", state: "1.1" }, names: ["clean"] };
  link.cell(ROW, other);
  await show();
  all(panel() as HTMLElement, '[aria-label="Next prompt"]')[0]?.click();
  await ready();
  all(panel() as HTMLElement, ".rs-against-open")[0]?.click();
  await vi.waitFor(() =>
    expect(all(panel() as HTMLElement, ".rs-against-box [role=option]").map(text)).toHaveLength(2),
  );
  all(panel() as HTMLElement, ".rs-against-box [role=option]")[1]?.click();
  await ready();
  const compared = (): number => about(link.asked, "compare").length;
  const attributed = about(link.asked, "attribute").length;
  expect(compared()).toBe(3);
  link.cell(ROW, other); // a cell that changes neither cache
  await ready();
  expect(compared()).toBe(3);
  link.cell(ROW, changed(other, { state: "2.1" }));
  await vi.waitFor(() => expect(compared()).toBe(6));
  expect(about(link.asked, "attribute")).toHaveLength(attributed); // this cache has not changed
});

it("follows a variable: takes each new cache of its name, even if the old one still has another name", async () => {
  const { link, show, facts, act, panel, root, ready } = open();
  await show();
  all(panel() as HTMLElement, '[role="gridcell"]')[3]?.click();
  root.querySelector<HTMLElement>(".rs-follow")?.click();
  for (const [id, others] of [
    ["c2", []],
    ["c3", [changed(ROW, { id: "c2" }, { names: ["old"] })]],
  ] as const) {
    link.cell(...others, changed(ROW, { id }));
    await vi.waitFor(() => expect(link.asked.some(({ cache }) => cache?.id === id)).toBe(true));
    await ready();
    expect(facts()).toMatch(/^cache /);
    expect(act()).toBeNull();
    expect(all(panel() as HTMLElement, '[aria-selected="true"][role="gridcell"]')).toHaveLength(1);
  }
  root.querySelector<HTMLElement>(".rs-follow")?.click();
  link.cell(changed(ROW, { id: "c4" }));
  await vi.waitFor(() => expect(act()?.textContent).toBe("Show the new one"));
});

it.each([
  ["cache", "cache"],
  ["", null],
  [7, null],
  ["x".repeat(2000), null],
  [undefined, null],
])("remembers that %s is followed as %s", (follow, kept) => {
  expect(asSelection({ follow })?.follow).toBe(kept);
});

it("shows what prevents attaching, with the line to run", async () => {
  const { link, root } = open();
  link.state.value = { kind: "refused", words: "No Residscope here.", line: "%pip install residscope==1" };
  await vi.waitFor(() => expect(text(root.querySelector(".rs-line code"))).toBe("%pip install residscope==1"));
  root.querySelector<HTMLElement>(".rs-link .rs-act")?.click();
  expect(link.retried).toBe(1);
});

it.each([
  ["copies the line to run", true],
  ["selects the line to run if the page may not use the clipboard, and says so", false],
])("%s", async (_, isAllowed) => {
  const { link, root } = open();
  const line = "%pip install residscope==1";
  const texts: string[] = [];
  const writeText = (text: string) => (isAllowed ? Promise.resolve(texts.push(text)) : Promise.reject(new Error("no")));
  vi.stubGlobal("navigator", { clipboard: { writeText } });
  link.state.value = { kind: "refused", words: "No Residscope here.", line };
  const button = await vi.waitFor(() => root.querySelector<HTMLElement>(".rs-line button") ?? Promise.reject());
  button.click();
  if (isAllowed) await vi.waitFor(() => expect([text(button), texts]).toEqual(["copied", [line]]));
  else {
    await vi.waitFor(() => expect(text(root.querySelector(".rs-link"))).toContain("Copy the line by hand"));
    expect([text(button), String(getSelection())]).toEqual(["copy", line]);
  }
  vi.unstubAllGlobals();
});

it("leaves nothing behind when it is closed", async () => {
  const { link, show } = open();
  await show();
  end.abort();
  expect(link.listeners()).toBe(0);
  expect(document.querySelector(".rs-sidebar")).toBeNull();
});

it("keeps the part of a selection that is valid for another cache", () => {
  const one = { contrasts: [{ answer: [{ id: 1, text: "a" }], distractor: [] }], direction: null };
  const selection = {
    ...asSelection({ prompt: 5, position: 5, heads: ["L2H1", "L9H9"], layer: 8 }),
    target: one,
  } as NonNullable<ReturnType<typeof asSelection>>;
  expect(fitting(selection, ROW)).toMatchObject({
    prompt: null,
    position: 5,
    heads: ["L2H1"],
    layer: null,
    target: one,
  });
  const perPrompt = { ...one, contrasts: [...one.contrasts, ...one.contrasts, ...one.contrasts] };
  expect(fitting({ ...selection, target: perPrompt }, ROW).target).toBeNull();
});

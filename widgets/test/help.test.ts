import { readFileSync } from "node:fs";
import { marked } from "marked";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { recordedKernel } from "../dev/recorded-kernel";
import { forHelp } from "../help.mjs";
import { asChapter, CHAPTERS, type Chapter } from "../src/base/chapters";
import { keysOf } from "../src/base/keys-of";
import { chapterFor, type Part } from "../src/state/help-chapter";
import type { Store } from "../src/state/store";
import { markdown } from "../src/ui/markdown";
import { HELP_EVENT } from "../src/views/header/help";
import { chapterOfTheTab } from "../src/views/tabs";
import { storeOf } from "./made";
import { key, open, text } from "./open";

const chapters = keysOf(CHAPTERS);
const read = (chapter: string): string => forHelp(readFileSync(`../py_backend/docs/${chapter}.md`, "utf8"), chapters);
const anchors = (): HTMLElement => document.createElement("a");

function drawn(source: string, linkTo: (address: string) => HTMLElement | null = anchors): HTMLElement {
  const article = document.createElement("article");
  article.append(...markdown(source, linkTo));
  return article;
}

describe("the documentation's Markdown", () => {
  it.each(chapters)("%s has the words and the parts that another renderer gives", (chapter) => {
    const source = read(chapter);
    const ours = drawn(source);
    const theirs = document.createElement("article");
    theirs.innerHTML = marked.parse(source, { async: false });
    const tight = (words: string): string => words.replaceAll(" ", "");
    expect(tight(text(ours))).toBe(tight(text(theirs)));
    for (const tag of ["h1", "h2", "h3", "p", "pre", "code", "ul", "ol", "blockquote", "th", "td", "a", "kbd"]) {
      const parts = (root: HTMLElement): string[] => [...root.querySelectorAll(tag)].map(text);
      expect(parts(ours).map(tight), tag).toEqual(parts(theirs).map(tight));
    }
    expect(text(ours.querySelector("h1"))).not.toBe("");
  });

  it("has a heading for each link between chapters", () => {
    const missing: string[] = [];
    for (const chapter of chapters)
      drawn(read(chapter), (address) => {
        const [, name, anchor] = /^([\w-]+)\.md(?:#(.*))?$/.exec(address) ?? [];
        if (
          anchor !== undefined &&
          asChapter(name) &&
          !drawn(read(`${name}`)).querySelector(`[data-anchor="${anchor}"]`)
        )
          missing.push(`${chapter}: ${address}`);
        return null;
      });
    expect(missing).toEqual([]);
  });

  it("shows HTML as text", () => {
    const hostile =
      "# <img src=x onerror=alert(1)>\n\nA <b>word</b> [here](javascript:alert(1)) `<script>`\n\n| <i> |\n|---|";
    const made = drawn(hostile, () => null);
    expect(made.querySelector("img, b, script, i, a")).toBeNull();
    expect(text(made)).toContain("<img src=x onerror=alert(1)>");
  });
});

describe("the chapter that Help opens", () => {
  const of = (part: Part | null, change: (store: Store) => void = () => {}): Chapter => {
    const store = storeOf([" a", " b"]);
    change(store);
    return chapterFor(part, store, chapterOfTheTab(store));
  };

  it.each<[Part | null, Chapter, ((store: Store) => void)?]>([
    [null, "panel"],
    ["heads", "panel"],
    ["heads", "scores", (store) => (store.score.value = "previous")],
    ["rank", "comparing", (store) => (store.against.value = { prompt: 1 })],
    ["strip", "next-token", (store) => (store.target.value = { contrasts: [], next_token: { versus: null } })],
    ["menu", "exports"],
    ["badge-place", "conventions"],
    ["notices", "limits"],
    ["lower", "why", (store) => (store.tab.value = "why")],
    ["lower", "mathematics", (store) => (store.tab.value = "token-lens")],
    ["lower", "causes", (store) => (store.tab.value = "runs")],
    ["lower", "segments", (store) => (store.tab.value = "segments")],
    [null, "why", (store) => (store.tab.value = "why")],
  ])("of %s is %s", (part, chapter, change) => {
    expect(of(part, change)).toBe(chapter);
  });
});

describe("Help in a panel", () => {
  const button = (root: HTMLElement) => root.querySelector<HTMLElement>(".rs-help-open");
  const box = (root: HTMLElement) => root.querySelector<HTMLElement>(".rs-help");
  const plain = recordedKernel();
  /** A panel whose host opens the chapters itself, and the chapters that the panel asked for. */
  const openWithHost = async () => {
    const { root, el, settled } = await open({ tab: "why" });
    await settled();
    const asked: unknown[] = [];
    el.addEventListener(HELP_EVENT, (event) => {
      asked.push((event as CustomEvent).detail);
      event.preventDefault();
    });
    return { root, asked };
  };

  it("asks the host for the chapter of the part in use, and opens nothing if the host opens it", async () => {
    const { root, asked } = await openWithHost();
    root.querySelector('[data-tab="why"]')?.dispatchEvent(new Event("focusin", { bubbles: true }));
    button(root)?.click();
    root.querySelector(".rs-export")?.dispatchEvent(new Event("focusin", { bubbles: true }));
    key(root.querySelector(".rs-export"), "?");
    expect(asked).toEqual(["why", "exports"]);
    expect(box(root)?.hidden).toBe(true);
  });

  it("is about the export menu only while the menu is open or has the focus", async () => {
    const { root, asked } = await openWithHost();
    const menu = root.querySelector<HTMLElement>(".rs-export");
    const tab = root.querySelector<HTMLElement>('[data-tab="why"]');
    const help = (): unknown => (button(root)?.click(), asked.pop());
    tab?.focus();
    menu?.focus();
    menu?.click();
    expect(menu?.getAttribute("aria-expanded")).toBe("true");
    expect(help()).toBe("exports");
    key(root.querySelector(".rs-export-menu"), "Escape"); // the focus goes back to the button of the menu
    expect(menu?.getAttribute("aria-expanded")).toBe("false");
    expect(help()).toBe("exports");
    button(root)?.focus();
    expect(help()).toBe("exports");
    button(root)?.blur(); // the user goes to a cell of the notebook
    expect(help()).toBe("why");
    menu?.focus();
    menu?.blur();
    button(root)?.focus();
    expect(help()).toBe("why");
    menu?.focus();
    tab?.focus();
    expect(help()).toBe("why");
  });

  it("reads the chapter from the kernel if no host opens it, and follows links", async () => {
    const { root, settled } = await open({ tab: "why" }, (ask) =>
      ask.kind === "chapter"
        ? { reply: { kind: "chapter", name: ask.name, text: `# About ${ask.name}\n\n[causes](causes.md)` } }
        : plain(ask),
    );
    await settled();
    button(root)?.click();
    await vi.waitFor(() => expect(text(root.querySelector(".rs-help h1"))).toBe("About why"));
    root.querySelector<HTMLElement>(".rs-chapter a")?.click();
    await vi.waitFor(() => expect(text(root.querySelector(".rs-help h1"))).toBe("About causes"));
    expect(root.querySelector<HTMLSelectElement>(".rs-help select")?.value).toBe("causes");
    key(root.querySelector(".rs-help select"), "Escape");
    expect(box(root)?.hidden).toBe(true);
    expect(document.activeElement).toBe(button(root));
  });

  it("says so if there is no such chapter", async () => {
    const failure = { code: "not-built", message: "The front end is not built: run `npm run build`." };
    const { root, settled } = await open({}, (ask) => (ask.kind === "chapter" ? { failure } : plain(ask)));
    await settled();
    button(root)?.click();
    await vi.waitFor(() => expect(text(root.querySelector(".rs-help [role=alert]"))).toContain("npm run build"));
  });
});

describe("the hint for a first visit", () => {
  const hint = (root: HTMLElement) => root.querySelector<HTMLElement>(".rs-first-hint");
  const forget = (): void => {
    localStorage.clear();
    Reflect.deleteProperty(globalThis, "residscope-first-visit-seen");
  };
  beforeEach(forget);
  afterEach(() => {
    vi.restoreAllMocks();
    forget();
  });

  it("goes away with the first pinned head, in all panels, and does not come back", async () => {
    const one = await open();
    const other = await open();
    await one.settled();
    expect([hint(one.root)?.hidden, hint(other.root)?.hidden]).toEqual([false, false]);
    expect(text(hint(one.root))).toContain("Move over a cell of the head map; click to pin it.");
    one.root.querySelector<HTMLElement>('[role="grid"] [role="gridcell"]')?.click();
    expect([hint(one.root)?.hidden, hint(other.root)?.hidden]).toEqual([true, true]);
    one.root.querySelector<HTMLElement>('[role="grid"] [role="gridcell"]')?.click(); // unpinned again
    const later = await open();
    expect(hint(later.root)?.hidden).toBe(true);
  });

  it("goes away by its button, also where the page may store nothing", async () => {
    const refuse = () => {
      throw new DOMException("no storage", "SecurityError");
    };
    vi.spyOn(Storage.prototype, "getItem").mockImplementation(refuse);
    vi.spyOn(Storage.prototype, "setItem").mockImplementation(refuse);
    const { root, settled } = await open();
    await settled();
    expect(hint(root)?.hidden).toBe(false);
    hint(root)?.querySelector("button")?.click();
    expect(hint(root)?.hidden).toBe(true);
    expect(hint((await open()).root)?.hidden).toBe(true);
  });

  it("is not there if heads are pinned from the start, and leaves its place to sentences", async () => {
    const { root, settled } = await open({ heads: ["L0H0"] });
    await settled();
    await vi.waitFor(() => expect(hint(root)?.hidden).toBe(true));
  });
});

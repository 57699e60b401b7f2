import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { FileRenameEvent, Memento, NotebookCell, NotebookDocument, NotebookEditor } from "vscode";
import { Hub } from "../src/hub";
import { memoryIn } from "../src/memory";
import { Notebooks } from "../src/notebooks";
import type { Pictures } from "../src/pictures";
import { events, settings, Uri, window, workspace } from "./fake-vscode";

const notebook = (name: string, notebookType = "jupyter-notebook") =>
  ({ uri: new Uri(`file:///w/${name}`), notebookType, isClosed: false }) as unknown as NotebookDocument;

let calls: string[];
let notebooks: Notebooks;
let end: AbortController;

function focus(document: NotebookDocument | undefined): void {
  window.activeNotebookEditor = document && ({ notebook: document } as NotebookEditor);
  events.active.fire(window.activeNotebookEditor);
}

beforeEach(() => {
  calls = [];
  window.activeNotebookEditor = undefined;
  window.visibleNotebookEditors = [];
  workspace.notebookDocuments = [];
  delete settings["followFocus"];
  notebooks = new Notebooks(
    {
      places: () => calls.push("places"),
      cell: (path, started) => calls.push(`${path} ${started ? "starts" : "ends"}`),
      opened: (path, open) => calls.push(`${path} ${open ? "opened" : "closed"}`),
      moved: (from, to) => calls.push(`${from} is ${to}`),
    },
    (end = new AbortController()).signal,
  );
});
afterEach(() => end.abort());

describe("the focused notebook", () => {
  it("is the last one that had the focus", () => {
    focus(notebook("a b.ipynb"));
    focus(undefined); // a text file
    focus(notebook("x.http", "http-book")); // a notebook of another kind
    expect(notebooks.focused).toEqual({ path: "file:///w/a b.ipynb", label: "a b.ipynb" });
  });

  it("is known from the start if a notebook is open", () => {
    window.activeNotebookEditor = { notebook: notebook("a.ipynb") } as NotebookEditor;
    const hub = new Hub(
      new Uri("file:///dist") as never,
      {} as Hub["memory"],
      {} as Pictures,
      () => undefined,
      end.signal,
    );
    expect(hub.places()).toMatchObject({ focused: { label: "a.ipynb" } });
  });

  it("is a visible one if no notebook has the focus", () => {
    window.visibleNotebookEditors = [{ notebook: notebook("b.ipynb") } as NotebookEditor];
    events.visible.fire(window.visibleNotebookEditors);
    expect(notebooks.focused?.label).toBe("b.ipynb");
    expect(calls).toEqual(["places"]);
  });

  it("stays if the settings say so, while it is open", () => {
    settings["followFocus"] = false;
    const [a, b] = [notebook("a.ipynb"), notebook("b.ipynb")];
    workspace.notebookDocuments = [a, b];
    focus(a);
    focus(b);
    expect(notebooks.focused?.label).toBe("a.ipynb");
    workspace.notebookDocuments = [b];
    events.closed.fire(a);
    expect(notebooks.focused?.label).toBe("b.ipynb");
    expect(calls).toContain("file:///w/a.ipynb closed");
  });
});

it("reports when cells start and end", () => {
  const cell = { notebook: notebook("a.ipynb"), index: 0 } as NotebookCell;
  const change = (executionSummary: NotebookCell["executionSummary"]) =>
    events.changed.fire({
      notebook: cell.notebook,
      metadata: undefined,
      contentChanges: [],
      cellChanges: [{ cell, executionSummary, document: undefined, metadata: undefined, outputs: undefined }],
    });
  change({ executionOrder: 1 });
  change({ executionOrder: 1 });
  expect(notebooks.cells("file:///w/a.ipynb")).toBe(1);
  change({ executionOrder: 1, success: true, timing: { startTime: 1, endTime: 2 } });
  expect(calls).toEqual(["file:///w/a.ipynb starts", "file:///w/a.ipynb ends"]);
  change({}); // "Clear All Outputs"
  expect(calls.length).toBe(2);
});

it("keeps the view of a notebook that was renamed, or whose folder was renamed", () => {
  let stored: unknown = ["a", "d/b"].map((name) => ({ path: `file:///w/${name}.ipynb`, name, selection: null }));
  const memory = memoryIn({
    get: () => stored,
    update: async (_: string, now: unknown) => void (stored = now),
    keys: () => [],
  } as unknown as Memento);
  const moved: string[] = [];
  const pictures = { move: (from: string, to: string) => moved.push(`${from} → ${to}`) } as unknown as Pictures;
  new Hub(new Uri("file:///dist") as never, memory, pictures, () => undefined, end.signal);
  const rename = (from: string, to: string): void =>
    events.renamed.fire({ files: [{ oldUri: new Uri(from), newUri: new Uri(to) }] } as unknown as FileRenameEvent);
  rename("file:///w/a.ipynb", "file:///w/A.ipynb");
  rename("file:///w/d", "file:///w/e");
  expect(memory.all.map(({ path, name }) => [path, name])).toEqual([
    ["file:///w/A.ipynb", "a"],
    ["file:///w/e/b.ipynb", "d/b"],
  ]);
  expect(moved).toEqual(["file:///w/a.ipynb → file:///w/A.ipynb", "file:///w/d/b.ipynb → file:///w/e/b.ipynb"]);
});

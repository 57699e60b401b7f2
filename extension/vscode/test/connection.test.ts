import type { Answer, LinkState, Question } from "@residscope/widgets";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Connection } from "../src/connection";
import type { LastKernel } from "../src/no-kernel";
import { installed, ran, Uri, workspace } from "./fake-vscode";
import { FakeKernel, jupyterWith, OURS, output, pieces, raw } from "./kernel";

let end: AbortController;
let kernel: FakeKernel;
let events: string[];
let connection: Connection;
const answers = new Map<string, { answer: Answer; buffers: ArrayBuffer[] }>();

const question = (id: string): Question => ({ id, ask: { kind: "caches" } });
const waitForPromises = async (): Promise<void> => {
  for (let turn = 0; turn < 200; turn += 1) await Promise.resolve();
};

function connect(...more: unknown[]): void {
  const [lastKernel, cells] = more as [LastKernel?, number?];
  connection = new Connection(
    Uri.parse("file:///n.ipynb") as never,
    {
      state: (now: LinkState) => events.push(now.kind),
      lost: () => events.push("lost"),
      renewed: () => events.push("renewed"),
      occupied: () => undefined,
    },
    end.signal,
    lastKernel,
    cells,
  );
}

const ask = (...ids: string[]): void => {
  for (const id of ids) connection.ask(question(id), (answer, buffers) => answers.set(id, { answer, buffers }));
};

beforeEach(() => {
  end = new AbortController();
  kernel = new FakeKernel();
  events = [];
  answers.clear();
  workspace.isTrusted = true;
  jupyterWith(() => kernel);
  connect();
});
afterEach(() => {
  end.abort();
  vi.useRealTimers();
});

const withWords = (words: RegExp) => expect.objectContaining({ words: expect.stringMatching(words) as string });

describe("attaching", () => {
  it("is ready if kernel and extension have the same version, after one expression whose value is None", async () => {
    await connection.attach();
    expect(connection.state).toEqual({ kind: "ready" });
    expect(events).toEqual(["renewed", "ready"]);
    expect(kernel.codes).toEqual([expect.stringMatching(/^\(exec\(.*\)\)\[1\]$/s)]);
  });

  it.each<[string, () => void, string, RegExp]>([
    ["there is no Jupyter extension", () => installed.clear(), "refused", /not installed/],
    [
      "the Jupyter extension is too old",
      () => installed.set("ms-toolsai.jupyter", { isActive: false, exports: {}, activate: async () => ({}) }),
      "refused",
      /too old/,
    ],
    ["the workspace is not trusted", () => (workspace.isTrusted = false), "refused", /not trusted/],
    ["no cell has run", () => jupyterWith(() => undefined), "none", /Run a cell/],
    ["the kernel has died", () => (kernel.status = "dead"), "none", /died/],
    ["the kernel runs another language", () => Object.assign(kernel, { language: "julia" }), "none", /not run Python/],
    ["access is denied", () => (kernel.script = [[], []]), "refused", /Manage Access/],
    [
      "access was revoked",
      () => (kernel.script = [Object.assign(new Error("no"), { name: "vscode.jupyter.apiAccessRevoked" })]),
      "refused",
      /Manage Access/,
    ],
    ["there is an error", () => (kernel.script = [new Error("Kernel is disposed")]), "refused", /Kernel is disposed/],
    [
      "the kernel has no Residscope",
      () => (kernel.info = { ...OURS, version: null, wire: null }),
      "refused",
      /no Residscope/,
    ],
    [
      "the kernel has another version",
      () => (kernel.info = { ...OURS, version: "9.9.9", wire: "x" }),
      "refused",
      /9\.9\.9/,
    ],
    ["the kernel has a compatible version", () => (kernel.info = { ...OURS, version: "9.9.9" }), "ready", /9\.9\.9/],
  ])("reports that %s", async (_, arrange, kind, words) => {
    arrange();
    await connection.attach();
    expect(connection.state.kind).toBe(kind);
    expect(connection.state).toEqual(withWords(words));
  });

  it("shows the line to run if the package is missing", async () => {
    kernel.info = { ...OURS, version: null, wire: null };
    await connection.attach();
    expect(connection.state).toHaveProperty("line", `%pip install residscope-${OURS.version}-py3-none-any.whl`);
  });

  it("reports that it waits for a running cell, and is ready after the cell", async () => {
    vi.useFakeTimers();
    let open = (): void => undefined;
    kernel.gate = new Promise((resolve) => (open = resolve));
    connection.cell(true);
    const attached = connection.attach();
    await vi.advanceTimersByTimeAsync(700);
    expect(connection.state).toEqual({ kind: "attaching", busy: true });
    open();
    await attached;
    expect(connection.state.kind).toBe("ready");
  });
});

describe("while attaching", () => {
  const never = (): Promise<void> => new Promise(() => undefined);

  it("tries again after an interrupt, which does not mean that access is denied", async () => {
    kernel.script = [[]];
    await connection.attach();
    expect(connection.state.kind).toBe("ready");
  });

  it("names the command if VS Code does not react, and is ready when the user allows access", async () => {
    vi.useFakeTimers();
    let allow = (): void => undefined;
    kernel.gate = new Promise((resolve) => (allow = resolve));
    void connection.attach();
    await vi.advanceTimersByTimeAsync(7000);
    expect(connection.state).toMatchObject({
      kind: "attaching",
      act: "Manage access",
      words: expect.stringMatching(/^VS Code asks .*Manage Access/) as string,
    });
    allow();
    await vi.advanceTimersByTimeAsync(10);
    expect(connection.state.kind).toBe("ready");
  });

  it("waits for a kernel that is busy", async () => {
    vi.useFakeTimers();
    kernel.gate = never();
    kernel.status = "busy";
    void connection.attach();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(connection.state.kind).toBe("attaching");
  });

  it("ends when the notebook is closed", async () => {
    vi.useFakeTimers();
    kernel.gate = never();
    void connection.attach();
    await vi.advanceTimersByTimeAsync(100);
    connection.setOpen(false);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(connection.state).toEqual(withWords(/not open/));
  });

  it("starts again when the kernel restarts", async () => {
    kernel.gate = never();
    void connection.attach();
    await waitForPromises();
    kernel.gate = Promise.resolve();
    kernel.become("restarting");
    expect(connection.state.kind).toBe("attaching");
    kernel.become("dead", "busy", "idle");
    await waitForPromises();
    expect(connection.state.kind).toBe("ready");
  });

  it("tries again after a cell, which may have installed the package, but not if access was denied", async () => {
    kernel.info = { ...OURS, version: null, wire: null };
    await connection.attach();
    kernel.info = OURS;
    connection.cell(false);
    await waitForPromises();
    expect(connection.state.kind).toBe("ready");
    kernel.script = [[], []];
    await connection.attach();
    const { attached } = kernel;
    connection.cell(false);
    await waitForPromises();
    expect(kernel.attached).toBe(attached);
  });
});

describe("requests", () => {
  beforeEach(() => connection.attach());

  it("are sent in batches: all waiting requests together, one batch at a time", async () => {
    ask("a", "b"); // at the same time, as a page does
    await Promise.resolve();
    ask("c");
    ask("d");
    await waitForPromises();
    expect(kernel.asked.map((batch) => batch.map(({ id }) => id))).toEqual([
      ["a", "b"],
      ["c", "d"],
    ]);
    expect([...answers.keys()]).toEqual(["a", "b", "c", "d"]);
    expect(kernel.cancelled).toBe(false);
  });

  it("get answers from pieces in any order, with other outputs between them", async () => {
    const bytes = Uint8Array.from({ length: 5000 }, (_, i) => i % 256);
    kernel.answers = ({ id }) => {
      const parts = pieces({ id, reply: { kind: "working", done: 1, total: 2 } }, [bytes], 7);
      return [
        parts[6]!,
        output({ warning: 1 }),
        output("text", "application/vnd.code.notebook.stderr"),
        ...parts.slice(0, 6),
      ];
    };
    ask("long");
    await waitForPromises();
    expect(new Uint8Array(answers.get("long")?.buffers[0]!)).toEqual(bytes);
    expect(answers.get("long")?.answer.reply).toMatchObject({ done: 1, total: 2 });
  });

  it("ignore the outputs of other code", async () => {
    const forged = (id: string, token?: unknown): unknown => ({
      token,
      id,
      piece: 0,
      pieces: 1,
      text: JSON.stringify({ answer: { id, reply: { kind: "working", done: 7, total: 7 } }, buffers: [] }),
    });
    const earlier = /"token": "(\w+)"/.exec(kernel.codes[0]!)?.[1];
    kernel.otherOutputs = [
      ...[undefined, null, "", 7, earlier, "f".repeat(32)].map((token) => output(forged("a", token))),
      ...["", "{", "null", "7", '"text"', "[]", "\u0000"].map((text) => raw(text)),
      raw("{", "application/vnd.code.notebook.error"),
      output({ name: "KeyError", message: "of a thread" }, "application/vnd.code.notebook.error"),
    ];
    // These have the right token, but are not valid answers to the request.
    kernel.answers = ({ id }) => [
      output(forged("b")),
      output({ id, piece: 0, pieces: 0.5, text: "" }),
      ...pieces({ id, reply: { kind: "working", done: 0, total: 0 } }),
    ];
    const got: unknown[] = [];
    connection.ask(question("b"), (answer) => got.push(answer));
    await waitForPromises();
    got.length = 0;
    connection.ask(question("a"), (answer) => got.push(answer));
    await waitForPromises();
    expect(got).toEqual([{ id: "a", reply: { kind: "working", done: 0, total: 0 } }]);
    expect(connection.state).toEqual({ kind: "ready" });
    expect(events).not.toContain("lost");
  });

  it("have a new token each, and are ASCII for any names", async () => {
    const odd = "naïve é \u2028 \u{1f642} \ud800 \udc00 \" ' \\ \n \u007f {answer}";
    connection.ask({ id: "a", ask: { kind: "caches" }, cache: { id: odd, state: "" } }, () => undefined);
    await waitForPromises();
    ask("b");
    await waitForPromises();
    expect(kernel.asked[0]?.[0]?.cache?.id).toBe(odd);
    const tokens = kernel.codes.map((code) => /"token": "(\w{32})"|"(\w{32})"\)$/.exec(code)?.slice(1).join(""));
    expect(new Set(tokens).size).toBe(3);
    for (const code of kernel.codes) expect(code).toMatch(/^[\n\x20-\x7e]+$/);
  });

  it("are lost by an interrupt; the connection attaches again, and they can be sent again", async () => {
    kernel.script = [[]];
    events.length = 0;
    ask("a");
    await waitForPromises();
    expect(events).toEqual(["lost", "attaching", "renewed", "ready"]);
    ask("a"); // as a client does after "renewed"
    await waitForPromises();
    expect(answers.has("a")).toBe(true);
  });

  it("are not tried again after a second failure", async () => {
    kernel.answers = () => [];
    ask("a");
    await waitForPromises();
    ask("a");
    await waitForPromises();
    expect(connection.state).toMatchObject({
      kind: "refused",
      words: expect.stringMatching(/without running it/) as string,
    });
    expect(kernel.asked.length).toBe(2);
  });

  it("fail if a part of the answer was lost; the others are answered", async () => {
    kernel.answers = ({ id }) =>
      pieces({ id, reply: { kind: "working", done: 1, total: 2 } }, [], id === "long" ? 3 : 1).slice(0, 2);
    ask("long", "short");
    await waitForPromises();
    expect(answers.get("long")?.answer.failure?.code).toBe("too-long");
    expect(answers.get("short")?.answer.reply).toBeDefined();
    expect(connection.state.kind).toBe("ready");
  });

  it("are refused if VS Code does not run them and reports nothing", async () => {
    vi.useFakeTimers();
    kernel.gate = new Promise(() => undefined);
    ask("a");
    await vi.advanceTimersByTimeAsync(7000);
    expect(connection.state).toEqual(withWords(/Manage Access/));
    kernel.gate = Promise.resolve();
    await connection.attach();
    ask("b"); // "a" was dropped
    await vi.advanceTimersByTimeAsync(10);
    expect(answers.has("b")).toBe(true);
  });

  it("are not refused while a long answer is on its way", async () => {
    vi.useFakeTimers();
    await connection.attach();
    kernel.answers = ({ id }) => pieces({ id, reply: { kind: "working", done: 0, total: 0 } }, [], 2);
    let arrives = (): void => undefined;
    kernel.nextPiece = new Promise((done) => (arrives = done));
    ask("a");
    await vi.advanceTimersByTimeAsync(30_000);
    expect(connection.state.kind).toBe("ready");
    arrives();
    await vi.advanceTimersByTimeAsync(10);
    expect(answers.get("a")?.answer.reply).toBeDefined();
  });

  it("are refused if access was revoked after attaching", async () => {
    kernel.script = [Object.assign(new Error("no"), { name: "vscode.jupyter.apiAccessRevoked" })];
    ask("a");
    await waitForPromises();
    expect(connection.state).toMatchObject({
      kind: "refused",
      words: expect.stringMatching(/Manage Access/) as string,
    });
  });
});

describe("a connection", () => {
  beforeEach(async () => {
    await connection.attach();
    events.length = 0;
  });

  it("attaches again after a restart, during which the kernel is reported as dead", async () => {
    kernel.become("restarting");
    connection.cell(false); // the restart has ended this cell
    await waitForPromises();
    kernel.become("dead");
    await waitForPromises();
    kernel.become("busy", "idle");
    await waitForPromises();
    expect(events).toEqual(["lost", "attaching", "renewed", "ready"]);
    expect(kernel.attached).toBe(2);
  });

  it("waits for a cell if VS Code gives no kernel after a restart", async () => {
    kernel.become("restarting", "dead");
    await waitForPromises();
    jupyterWith(() => undefined);
    kernel.become("idle");
    await waitForPromises();
    expect(connection.state).toMatchObject({
      kind: "none",
      words: expect.stringMatching(/was restarted and has not run a cell/) as string,
    });
    connection.cell(true);
    expect(connection.state).toEqual({ kind: "attaching", busy: true });
    jupyterWith(() => kernel);
    connection.cell(false);
    await waitForPromises();
    expect(connection.state.kind).toBe("ready");
  });

  it("reports after some time that the kernel has died, and attaches when it runs again", async () => {
    vi.useFakeTimers();
    kernel.become("dead");
    expect(connection.state.kind).toBe("attaching");
    await vi.advanceTimersByTimeAsync(3000);
    expect(connection.state).toMatchObject({ kind: "none", words: expect.stringMatching(/died/) as string });
    kernel.become("restarting", "dead", "idle");
    await vi.advanceTimersByTimeAsync(10);
    expect(connection.state.kind).toBe("ready");
  });

  it("does not call a kernel dead if the user chose another one", async () => {
    vi.useFakeTimers();
    jupyterWith(() => undefined);
    kernel.become("terminating", "dead");
    await vi.advanceTimersByTimeAsync(3000);
    expect(connection.state).toMatchObject({
      kind: "none",
      words: expect.stringMatching(/was changed or stopped/) as string,
    });
    expect(events).toEqual(["lost", "attaching", "none"]);
  });

  it("attaches to another kernel that the user chose, after the next cell", async () => {
    const other = new FakeKernel();
    jupyterWith(() => other);
    connection.cell(false);
    await waitForPromises();
    expect(other.attached).toBe(1);
    expect(kernel.statusChanged.listeners).toBe(0);
  });

  it("opens the list of allowed extensions on request, and then tries again", async () => {
    kernel.script = [Object.assign(new Error("no"), { name: "vscode.jupyter.apiAccessRevoked" })];
    ask("a");
    await waitForPromises();
    expect(connection.state).toMatchObject({ kind: "refused", act: "Manage access" });
    await connection.act();
    expect(ran).toEqual(["jupyter.manageAccessToKernels"]);
    expect(connection.state.kind).toBe("ready");
  });

  it("ends when its notebook is closed, and starts when it is opened", async () => {
    connection.setOpen(false);
    expect(connection.state).toMatchObject({ kind: "none", words: expect.stringMatching(/not open/) as string });
    connection.setOpen(true);
    await waitForPromises();
    expect(connection.state.kind).toBe("ready");
  });

  it("stops listening to the kernel when the extension ends", () => {
    end.abort();
    expect(kernel.statusChanged.listeners).toBe(0);
  });
});

describe("without a kernel, a connection", () => {
  it.each<[string, LastKernel, number, object]>([
    ["a cell is running", { cause: "none" }, 1, { kind: "attaching", busy: true }],
    [
      "the window was reloaded",
      { cause: "window", name: "cache" },
      0,
      { kind: "none", words: "The kernel ended with the window. Run the cell that makes `cache` again." },
    ],
    [
      "the notebook was closed",
      { cause: "notebook", name: "a`b" },
      0,
      { kind: "none", words: "The kernel ended when this notebook was closed. Run the cell that makes `aˋb` again." },
    ],
  ])("reports that %s", async (_, lastKernel, cells, now) => {
    jupyterWith(() => undefined);
    connect(lastKernel, cells);
    await connection.attach();
    expect(connection.state).toEqual(now);
    connection.cell(true);
    expect(connection.state).toEqual({ kind: "attaching", busy: true });
    jupyterWith(() => kernel);
    connection.cell(false);
    await waitForPromises();
    expect(connection.state.kind).toBe("ready");
  });
});

import type { Answer, LinkState, Question } from "@residscope/widgets";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Past } from "../src/absence";
import { Connection } from "../src/connection";
import { installed, ran, Uri, workspace } from "./fake-vscode";
import { FakeKernel, jupyterWith, output, pieces, raw, US } from "./kernel";

let end: AbortController;
let kernel: FakeKernel;
let events: string[];
let connection: Connection;
const answers = new Map<string, { answer: Answer; buffers: ArrayBuffer[] }>();

const question = (id: string): Question => ({ id, ask: { kind: "caches" } });
const settled = async (): Promise<void> => {
  for (let turn = 0; turn < 200; turn += 1) await Promise.resolve();
};

function connect(...more: unknown[]): void {
  const [past, cells] = more as [Past?, number?];
  connection = new Connection(
    Uri.parse("file:///n.ipynb") as never,
    {
      state: (now: LinkState) => events.push(now.kind),
      lost: () => events.push("lost"),
      renewed: () => events.push("renewed"),
      occupied: () => undefined,
    },
    end.signal,
    past,
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

const say = (words: RegExp) => expect.objectContaining({ words: expect.stringMatching(words) as string });

describe("attaching", () => {
  it("is ready where kernel and extension are of one version, in one expression that is None", async () => {
    await connection.attach();
    expect(connection.state).toEqual({ kind: "ready" });
    expect(events).toEqual(["renewed", "ready"]);
    expect(kernel.codes).toEqual([expect.stringMatching(/^\(exec\(.*\)\)\[1\]$/s)]);
  });

  it.each<[string, () => void, string, RegExp]>([
    ["no Jupyter extension", () => installed.clear(), "refused", /not installed/],
    [
      "one that is too old",
      () => installed.set("ms-toolsai.jupyter", { isActive: false, exports: {}, activate: async () => ({}) }),
      "refused",
      /too old/,
    ],
    ["an untrusted workspace", () => (workspace.isTrusted = false), "refused", /not trusted/],
    ["no kernel that has run a cell", () => jupyterWith(() => undefined), "none", /Run one/],
    ["a kernel that died", () => (kernel.status = "dead"), "none", /died/],
    ["another language", () => Object.assign(kernel, { language: "julia" }), "none", /not run Python/],
    ["access denied", () => (kernel.script = [[], []]), "refused", /Manage Access/],
    [
      "access taken away",
      () => (kernel.script = [Object.assign(new Error("no"), { name: "vscode.jupyter.apiAccessRevoked" })]),
      "refused",
      /Manage Access/,
    ],
    ["an error", () => (kernel.script = [new Error("Kernel is disposed")]), "refused", /Kernel is disposed/],
    ["no Residscope there", () => (kernel.who = { ...US, version: null, wire: null }), "refused", /no Residscope/],
    ["another version there", () => (kernel.who = { ...US, version: "9.9.9", wire: "x" }), "refused", /9\.9\.9/],
    ["a compatible version there", () => (kernel.who = { ...US, version: "9.9.9" }), "ready", /9\.9\.9/],
  ])("says so: %s", async (_, arrange, kind, words) => {
    arrange();
    await connection.attach();
    expect(connection.state.kind).toBe(kind);
    expect(connection.state).toEqual(say(words));
  });

  it("gives the line to run where the package is missing", async () => {
    kernel.who = { ...US, version: null, wire: null };
    await connection.attach();
    expect(connection.state).toHaveProperty("line", `%pip install residscope==${US.version}`);
  });

  it("says that a running cell comes first, and is ready after it", async () => {
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

describe("on the way", () => {
  const never = (): Promise<void> => new Promise(() => undefined);

  it("an interrupt is no denial", async () => {
    kernel.script = [[]];
    await connection.attach();
    expect(connection.state.kind).toBe("ready");
  });

  it(
    "does not wait for ever where VS Code neither runs nor refuses it, and is ready when it is allowed " + "after all",
    async () => {
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
    },
  );

  it("is patient with a kernel that has work to do", async () => {
    vi.useFakeTimers();
    kernel.gate = never();
    kernel.status = "busy";
    void connection.attach();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(connection.state.kind).toBe("attaching");
  });

  it("ends with its notebook", async () => {
    vi.useFakeTimers();
    kernel.gate = never();
    void connection.attach();
    await vi.advanceTimersByTimeAsync(100);
    connection.close();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(connection.state).toEqual(say(/not open/));
  });

  it("hears of a restart", async () => {
    kernel.gate = never();
    void connection.attach();
    await settled();
    kernel.gate = Promise.resolve();
    kernel.become("restarting");
    expect(connection.state.kind).toBe("attaching");
    kernel.become("dead", "busy", "idle");
    await settled();
    expect(connection.state.kind).toBe("ready");
  });

  it("is tried again after a cell that may have installed the package, and not where access was denied", async () => {
    kernel.who = { ...US, version: null, wire: null };
    await connection.attach();
    kernel.who = US;
    connection.cell(false);
    await settled();
    expect(connection.state.kind).toBe("ready");
    kernel.script = [[], []];
    await connection.attach();
    const { greeted } = kernel;
    connection.cell(false);
    await settled();
    expect(kernel.greeted).toBe(greeted);
  });
});

describe("asking", () => {
  beforeEach(() => connection.attach());

  it("takes all that waits in one request, and the next behind it", async () => {
    ask("a", "b"); // what a page asks in one go
    await Promise.resolve();
    ask("c");
    ask("d");
    await settled();
    expect(kernel.asked.map((batch) => batch.map(({ id }) => id))).toEqual([
      ["a", "b"],
      ["c", "d"],
    ]);
    expect([...answers.keys()]).toEqual(["a", "b", "c", "d"]);
    expect(kernel.cancelled).toBe(false);
  });

  it("puts pieces together, whatever their order and whatever comes between", async () => {
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
    await settled();
    expect(new Uint8Array(answers.get("long")?.buffers[0]!)).toEqual(bytes);
    expect(answers.get("long")?.answer.reply).toMatchObject({ done: 1, total: 2 });
  });

  it("takes nothing for an answer that other code shows meanwhile, and is not disturbed by it", async () => {
    const forged = (id: string, token?: unknown): unknown => ({
      token,
      id,
      piece: 0,
      pieces: 1,
      text: JSON.stringify({ answer: { id, reply: { kind: "working", done: 7, total: 7 } }, buffers: [] }),
    });
    const earlier = /"token": "(\w+)"/.exec(kernel.codes[0]!)?.[1];
    kernel.meanwhile = [
      ...[undefined, null, "", 7, earlier, "f".repeat(32)].map((token) => output(forged("a", token))),
      ...["", "{", "null", "7", '"text"', "[]", "\u0000"].map((text) => raw(text)),
      raw("{", "application/vnd.code.notebook.error"),
      output({ name: "KeyError", message: "of a thread" }, "application/vnd.code.notebook.error"),
    ];
    // With the token, and yet no answer to what was asked.
    kernel.answers = ({ id }) => [
      output(forged("b")),
      output({ id, piece: 0, pieces: 0.5, text: "" }),
      ...pieces({ id, reply: { kind: "working", done: 0, total: 0 } }),
    ];
    const got: unknown[] = [];
    connection.ask(question("b"), (answer) => got.push(answer));
    await settled();
    got.length = 0;
    connection.ask(question("a"), (answer) => got.push(answer));
    await settled();
    expect(got).toEqual([{ id: "a", reply: { kind: "working", done: 0, total: 0 } }]);
    expect(connection.state).toEqual({ kind: "ready" });
    expect(events).not.toContain("lost");
  });

  it("has another token for each request, and asks in ASCII whatever the names are", async () => {
    const odd = "naïve é \u2028 \u{1f642} \ud800 \udc00 \" ' \\ \n \u007f {answer}";
    connection.ask({ id: "a", ask: { kind: "caches" }, cache: { id: odd, state: "" } }, () => undefined);
    await settled();
    ask("b");
    await settled();
    expect(kernel.asked[0]?.[0]?.cache?.id).toBe(odd);
    const tokens = kernel.codes.map((code) => /"token": "(\w{32})"|"(\w{32})"\)$/.exec(code)?.slice(1).join(""));
    expect(new Set(tokens).size).toBe(3);
    for (const code of kernel.codes) expect(code).toMatch(/^[\n\x20-\x7e]+$/);
  });

  it("attaches again when a request was interrupted, and has it asked again", async () => {
    kernel.script = [[]];
    events.length = 0;
    ask("a");
    await settled();
    expect(events).toEqual(["lost", "attaching", "renewed", "ready"]);
    ask("a"); // as a client does that was told
    await settled();
    expect(answers.has("a")).toBe(true);
  });

  it("does not try for ever", async () => {
    kernel.answers = () => [];
    ask("a");
    await settled();
    ask("a");
    await settled();
    expect(connection.state).toMatchObject({
      kind: "refused",
      words: expect.stringMatching(/without running it/) as string,
    });
    expect(kernel.asked.length).toBe(2);
  });

  it("says that an answer was lost in part, and goes on", async () => {
    kernel.answers = ({ id }) =>
      pieces({ id, reply: { kind: "working", done: 1, total: 2 } }, [], id === "long" ? 3 : 1).slice(0, 2);
    ask("long", "short");
    await settled();
    expect(answers.get("long")?.answer.failure?.code).toBe("too-long");
    expect(answers.get("short")?.answer.reply).toBeDefined();
    expect(connection.state.kind).toBe("ready");
  });

  it("does not wait for ever where access is taken away without a word", async () => {
    vi.useFakeTimers();
    kernel.gate = new Promise(() => undefined);
    ask("a");
    await vi.advanceTimersByTimeAsync(7000);
    expect(connection.state).toEqual(say(/Manage Access/));
    kernel.gate = Promise.resolve();
    await connection.attach();
    ask("b"); // what was left lying is nobody's any more
    await vi.advanceTimersByTimeAsync(10);
    expect(answers.has("b")).toBe(true);
  });

  it("calls nothing refused while a long answer travels", async () => {
    vi.useFakeTimers();
    await connection.attach();
    kernel.answers = ({ id }) => pieces({ id, reply: { kind: "working", done: 0, total: 0 } }, [], 2);
    let arrives = (): void => undefined;
    kernel.travels = new Promise((done) => (arrives = done));
    ask("a");
    await vi.advanceTimersByTimeAsync(30_000);
    expect(connection.state.kind).toBe("ready");
    arrives();
    await vi.advanceTimersByTimeAsync(10);
    expect(answers.get("a")?.answer.reply).toBeDefined();
  });

  it("is refused when access is taken away in between", async () => {
    kernel.script = [Object.assign(new Error("no"), { name: "vscode.jupyter.apiAccessRevoked" })];
    ask("a");
    await settled();
    expect(connection.state).toMatchObject({
      kind: "refused",
      words: expect.stringMatching(/Manage Access/) as string,
    });
  });
});

describe("the kernel", () => {
  beforeEach(async () => {
    await connection.attach();
    events.length = 0;
  });

  it("is attached to again after a restart, on the way of which it is called dead", async () => {
    kernel.become("restarting");
    connection.cell(false); // one that the restart has ended
    await settled();
    kernel.become("dead");
    await settled();
    kernel.become("busy", "idle");
    await settled();
    expect(events).toEqual(["lost", "attaching", "renewed", "ready"]);
    expect(kernel.greeted).toBe(2);
  });

  it("waits for a cell where a restart left no kernel to be had", async () => {
    kernel.become("restarting", "dead");
    await settled();
    jupyterWith(() => undefined);
    kernel.become("idle");
    await settled();
    expect(connection.state).toMatchObject({
      kind: "none",
      words: expect.stringMatching(/was restarted and has not run a cell/) as string,
    });
    connection.cell(true);
    expect(connection.state).toEqual({ kind: "attaching", busy: true });
    jupyterWith(() => kernel);
    connection.cell(false);
    await settled();
    expect(connection.state.kind).toBe("ready");
  });

  it("says that it died when it has been dead for a moment, and is there again when it runs", async () => {
    vi.useFakeTimers();
    kernel.become("dead");
    expect(connection.state.kind).toBe("attaching");
    await vi.advanceTimersByTimeAsync(3000);
    expect(connection.state).toMatchObject({ kind: "none", words: expect.stringMatching(/died/) as string });
    kernel.become("restarting", "dead", "idle");
    await vi.advanceTimersByTimeAsync(10);
    expect(connection.state.kind).toBe("ready");
  });

  it("is not called dead where another one was chosen", async () => {
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

  it("may be another one after a cell", async () => {
    const other = new FakeKernel();
    jupyterWith(() => other);
    connection.cell(false);
    await settled();
    expect(other.greeted).toBe(1);
    expect(kernel.statusChanged.listeners).toBe(0);
  });

  it("is a guest of whom the user decides: a button opens the list, then it is tried again", async () => {
    kernel.script = [Object.assign(new Error("no"), { name: "vscode.jupyter.apiAccessRevoked" })];
    ask("a");
    await settled();
    expect(connection.state).toMatchObject({ kind: "refused", act: "Manage access" });
    await connection.act();
    expect(ran).toEqual(["jupyter.manageAccessToKernels"]);
    expect(connection.state.kind).toBe("ready");
  });

  it("goes with its notebook, and comes with it", async () => {
    connection.close();
    expect(connection.state).toMatchObject({ kind: "none", words: expect.stringMatching(/not open/) as string });
    connection.close(true);
    await settled();
    expect(connection.state.kind).toBe("ready");
  });

  it("is let go when the extension ends", () => {
    end.abort();
    expect(kernel.statusChanged.listeners).toBe(0);
  });
});

describe("before there is a kernel", () => {
  it.each<[string, Past, number, object]>([
    ["a cell runs", { what: "none" }, 1, { kind: "attaching", busy: true }],
    [
      "the window was loaded again",
      { what: "window", name: "cache" },
      0,
      { kind: "none", words: "The kernel ended with the window. Run the cell that makes `cache` again." },
    ],
    [
      "the notebook was closed",
      { what: "notebook", name: "a`b" },
      0,
      { kind: "none", words: "The kernel ended when this notebook was closed. Run the cell that makes `aˋb` again." },
    ],
  ])("says what is waited for: %s", async (_, past, cells, now) => {
    jupyterWith(() => undefined);
    connect(past, cells);
    await connection.attach();
    expect(connection.state).toEqual(now);
    connection.cell(true);
    expect(connection.state).toEqual({ kind: "attaching", busy: true });
    jupyterWith(() => kernel);
    connection.cell(false);
    await settled();
    expect(connection.state.kind).toBe("ready");
  });
});

import { signal as state } from "@preact/signals-core";
import { afterEach, describe, expect, it, vi } from "vitest";
import { columnsOf } from "../dev/component-table";
import { type Ask, Client, float32, RequestFailed, SILENCE_MS, type Transport, words16 } from "../src/wire/client";
import { componentsOf } from "../src/wire/components";
import type { CacheRef, Question } from "../src/wire/protocol.gen";

function setup(more: Partial<Transport> = {}) {
  const sent: Question[] = [];
  let deliver: (message: unknown, buffers: DataView[]) => void = () => {};
  let [lose, renew] = [(): void => {}, (): void => {}];
  const transport: Transport = {
    send: (message) => sent.push(message),
    onMessage: (listener) => (deliver = listener),
    onLost: (listener) => (lose = listener),
    onRenewed: (listener) => (renew = listener),
    ...more,
  };
  const end = new AbortController();
  const about: { cache: CacheRef | null } = { cache: null };
  const client = new Client(transport, end.signal, () => about.cache);
  const reply = (index: number, text = ""): void =>
    deliver(
      { id: sent[index]?.id, reply: { kind: "check", text, tokens: [], single: false, message: "", suggestions: [] } },
      [],
    );
  const check = (text: string) => client.latest("box", { kind: "check", text });
  return {
    sent,
    client,
    about,
    reply,
    check,
    end,
    deliver: (m: unknown) => deliver(m, []),
    lose: () => lose(),
    renew: () => renew(),
  };
}
type Sent = ReturnType<typeof setup>;
const flush = (): Promise<unknown> => vi.advanceTimersByTimeAsync(0);
/** The present state of a promise. */
function fate(promise: Promise<unknown>): () => string {
  let now = "waits";
  promise.then(
    (found) => (now = found === null ? "null" : "there"),
    (error: unknown) => (now = error instanceof RequestFailed ? error.code : String(error)),
  );
  return () => now;
}
const texts = (sent: Question[]): string[] => sent.map(({ ask }) => (ask.kind === "check" ? ask.text : ask.kind));

afterEach(() => vi.useRealTimers());

describe("latest", () => {
  it("keeps only the newest request while one is in flight", async () => {
    const { sent, reply, check } = setup();
    const [a, b, c] = [check("a"), check("b"), check("c")];
    expect(texts(sent)).toEqual(["a"]);
    await expect(b).resolves.toBeNull();
    reply(0, "a");
    await expect(a).resolves.toBeNull(); // outdated: replaced by c
    expect(texts(sent)).toEqual(["a", "c"]);
    reply(1, "c");
    expect((await c)?.reply.text).toBe("c");
  });

  it("does not let views wait for each other", () => {
    const { sent, client, check } = setup();
    void check("a");
    void client.latest("other", { kind: "describe" });
    expect(texts(sent)).toEqual(["a", "describe"]);
  });

  it("sends the next one after a failure", async () => {
    const { sent, check, deliver } = setup();
    const a = check("a");
    deliver({ id: sent[0]?.id, failure: { code: "no-cache", message: "Run the cell again." } });
    await expect(a).rejects.toMatchObject({ code: "no-cache", message: "Run the cell again." });
    void check("b");
    expect(texts(sent)).toEqual(["a", "b"]);
  });

  it("sends the next one if an answer never comes", () => {
    vi.useFakeTimers();
    const { sent, check } = setup();
    void check("a");
    vi.advanceTimersByTime(31_000);
    void check("b");
    expect(texts(sent)).toEqual(["a", "b"]);
  });
});

describe("a long job", () => {
  const setupLong = () => {
    const made = setup();
    const working = (index: number, done: number): void =>
      made.deliver({ id: made.sent[index]?.id, reply: { kind: "working", done, total: 9 } });
    return { ...made, working };
  };

  it("is requested again with the same id until the reply is there, and reports its progress", async () => {
    const { sent, client, reply, check, working } = setupLong();
    const a = check("a");
    working(0, 2);
    expect(client.progress.value).toEqual({ done: 2, total: 9 });
    working(1, 5);
    expect(sent.map((q) => q.id)).toEqual([sent[0]?.id, sent[0]?.id, sent[0]?.id]);
    expect(client.progress.value).toEqual({ done: 5, total: 9 });
    reply(2, "a");
    expect((await a)?.reply.text).toBe("a");
    expect(client.progress.value).toBeNull();
  });

  it("is cancelled for a newer request, which does not wait for it", async () => {
    const { sent, client, reply, check, working } = setupLong();
    const a = check("a");
    working(0, 2);
    const b = check("b");
    await expect(a).resolves.toBeNull();
    expect(texts(sent)).toEqual(["a", "a", "give-up", "b"]);
    expect(sent[2]?.ask).toEqual({ kind: "give-up", id: sent[0]?.id });
    working(1, 4); // too late: the client sends nothing
    expect(sent.length).toBe(4);
    reply(3, "b");
    expect((await b)?.reply.text).toBe("b");
    expect(client.progress.value).toBeNull();
  });

  it("is cancelled in the cache that the request was about, even if another one is shown by then", async () => {
    const { sent, about, check, working } = setupLong();
    about.cache = { id: "one", state: "1.1.0" };
    const a = check("a");
    working(0, 2);
    about.cache = { id: "two", state: "1.1.0" };
    void check("b");
    await expect(a).resolves.toBeNull();
    expect(sent.map(({ ask, cache }) => [ask.kind, cache?.id])).toEqual([
      ["check", "one"],
      ["check", "one"],
      ["give-up", "one"],
      ["check", "two"],
    ]);
  });

  it("is cancelled when its view is left", async () => {
    const { sent, client, check, working } = setupLong();
    const a = check("a");
    client.leave("box"); // not known to be a long job, so its reply will come soon
    working(0, 2);
    client.leave("box");
    await expect(a).resolves.toBeNull();
    expect(texts(sent)).toEqual(["a", "a", "give-up"]);
  });
});

describe("ask", () => {
  it("matches answers by id, in any order, and ignores unknown ids", async () => {
    const { sent, client, reply, deliver } = setup();
    const [a, b] = [client.ask({ kind: "check", text: "a" }), client.ask({ kind: "check", text: "b" })];
    expect(new Set(sent.map((q) => q.id)).size).toBe(2);
    deliver({ id: "somebody-else", reply: { kind: "tokens", tokens: [] } });
    deliver("noise");
    reply(1, "b");
    reply(0, "a");
    expect([(await a).reply.text, (await b).reply.text]).toEqual(["a", "b"]);
  });

  it("gives each view of one model its own ids", () => {
    const ids = [setup(), setup()].map(({ client, sent }) => {
      void client.ask({ kind: "describe" });
      return sent[0]?.id;
    });
    expect(ids[0]).not.toBe(ids[1]);
  });

  it("creates ids that no other page creates, whatever its random numbers", () => {
    vi.spyOn(Math, "random").mockReturnValue(0.5);
    const { client, sent } = setup();
    void client.ask({ kind: "describe" });
    vi.restoreAllMocks();
    expect(sent[0]?.id).toMatch(/^[0-9a-f]{32}-\d+$/);
  });

  it("refuses a reply of another kind", async () => {
    const { sent, client, deliver } = setup();
    const asked = client.ask({ kind: "describe" });
    deliver({ id: sent[0]?.id, reply: { kind: "tokens", tokens: [] } });
    await expect(asked).rejects.toBeInstanceOf(RequestFailed);
  });

  const target = { contrasts: [] };
  it.each<[Ask, object]>([
    [{ kind: "attribute", by: "layer", target }, { by: "head" }],
    [{ kind: "positions", by: "layer", target }, { by: "head" }],
    [
      { kind: "attention", layer: 2, head: 1, target },
      { layer: 2, head: 3 },
    ],
    [
      { kind: "attention", layer: 2, head: 1, target },
      { layer: 1, head: 1 },
    ],
    [
      { kind: "attention", layer: 2, head: 1, target, pool: "mean" },
      { layer: 2, head: 1, pool: "peak" },
    ],
    [{ kind: "thumbnails", layer: 2, target }, { layer: 1 }],
    [{ kind: "blend", layer: 2, target, weighting: "value" }, { part: { what: "pattern" } }],
    [{ kind: "scores", score: "induction" }, { score: "previous" }],
    [{ kind: "token-lens", points: ["1_pre"], start: 0, stop: 4, target }, { points: ["2_pre"] }],
    [{ kind: "check", text: " Mary" }, { text: " John" }],
  ])("refuses the reply to another question: %j", async (ask, other) => {
    const { sent, client, deliver } = setup();
    const asked = client.ask(ask as Extract<Ask, { kind: "check" }>);
    deliver({ id: sent[0]?.id, reply: { kind: ask.kind, ...other } });
    await expect(asked).rejects.toMatchObject({ code: "bad-answer" });
  });

  it("counts a request as in flight until its reply can have been drawn", async () => {
    vi.useFakeTimers();
    const { client, reply } = setup();
    const asked = client.ask({ kind: "check", text: "a" });
    reply(0, "a");
    await asked;
    expect(client.inFlight.value).toBe(1);
    await vi.advanceTimersByTimeAsync(1);
    expect(client.inFlight.value).toBe(0);
  });

  it("lets waiting requests fail when the kernel side is gone or the view closes", async () => {
    const gone = setup();
    const asked = gone.client.ask({ kind: "describe" });
    gone.lose();
    await expect(asked).rejects.toMatchObject({ code: "lost" });
    await expect(gone.client.ask({ kind: "describe" })).rejects.toMatchObject({ code: "lost" });
    const broken = new Client(
      {
        send: () => {
          throw new Error("Cannot send");
        },
        onMessage: () => {},
      },
      new AbortController().signal,
    );
    await expect(broken.ask({ kind: "describe" })).rejects.toMatchObject({ code: "lost" });
    expect(broken.lost.value).toBe(true);
    const closed = setup();
    const other = closed.client.ask({ kind: "describe" });
    closed.end.abort();
    await expect(other).rejects.toMatchObject({ code: "closed" });
  });
});

describe("the newest request of a view", () => {
  it.each([
    [30_000, ["a"]],
    [30_001, ["a", "b"]],
  ])("waits for a lost answer for at most half a minute: after %i ms", (ms, expected) => {
    vi.useFakeTimers();
    const { sent, check } = setup();
    void check("a");
    vi.advanceTimersByTime(ms);
    void check("b");
    expect(texts(sent)).toEqual(expected);
  });

  it("arrives, whatever the result of the older one", async () => {
    vi.useFakeTimers();
    const { sent, check, reply, deliver } = setup();
    const a = fate(check("a"));
    vi.advanceTimersByTime(31_000);
    const b = fate(check("b"));
    const c = fate(check("c"));
    deliver({ id: sent[0]?.id, failure: { code: "late", message: "" } });
    await flush();
    expect([a(), b(), c(), texts(sent)]).toEqual(["null", "waits", "waits", ["a", "b"]]);
    reply(1, "b");
    await flush();
    expect([b(), texts(sent)]).toEqual(["null", ["a", "b", "c"]]);
    reply(2, "c");
    await flush();
    expect(c()).toBe("there");
    void check("d"); // nothing is in flight any more
    expect(texts(sent)).toEqual(["a", "b", "c", "d"]);
  });

  it("arrives, and the one that waited before it is never sent", async () => {
    vi.useFakeTimers();
    const { sent, check, reply } = setup();
    const [a, b] = [fate(check("a")), fate(check("b"))];
    vi.advanceTimersByTime(31_000);
    const c = fate(check("c"));
    reply(0, "a");
    await flush();
    reply(1, "c");
    await flush();
    expect([a(), b(), c(), texts(sent)]).toEqual(["null", "null", "there", ["a", "c"]]);
  });

  it("cancels the older one if that is a long job, however long it has taken", async () => {
    vi.useFakeTimers();
    const { sent, check, deliver, reply } = setup();
    const a = fate(check("a"));
    deliver({ id: sent[0]?.id, reply: { kind: "working", done: 1, total: 9 } });
    vi.advanceTimersByTime(31_000);
    const b = fate(check("b"));
    await flush();
    expect([a(), texts(sent).slice(2).sort()]).toEqual(["null", ["b", "give-up"]]);
    reply(texts(sent).indexOf("b"), "b");
    await flush();
    expect(b()).toBe("there");
  });

  it("is requested after an older one that failed, and that failure is not reported", async () => {
    vi.useFakeTimers();
    const { sent, check, deliver } = setup();
    const [a, b] = [fate(check("a")), fate(check("b"))];
    deliver({ id: sent[0]?.id, failure: { code: "x", message: "" } });
    await flush();
    expect([a(), b(), texts(sent)]).toEqual(["null", "waits", ["a", "b"]]);
  });

  it("is dropped when its view is left during a long job; the request of another view is not", async () => {
    vi.useFakeTimers();
    const { sent, client, check, deliver } = setup();
    client.leave("box"); // nothing is in flight
    const [a, other] = [fate(check("a")), fate(client.latest("other", { kind: "check", text: "o" }))];
    client.leave("box"); // not known to be a long job
    for (const index of [0, 1]) deliver({ id: sent[index]?.id, reply: { kind: "working", done: 1, total: 0 } });
    client.leave("box");
    await flush();
    expect([a(), other(), texts(sent).slice(4), client.progress.value]).toEqual([
      "null",
      "waits",
      ["give-up"],
      { done: 1, total: 0 },
    ]);
    client.leave("nobody");
    expect(sent.length).toBe(5);
    void check("b"); // at once
    expect(texts(sent).at(-1)).toBe("b");
  });
});

describe("requests in advance", () => {
  const spare = (made: Sent, signal = new AbortController().signal) =>
    fate(made.client.spare({ kind: "check", text: "s" }, signal));

  it("are sent when nothing else is in flight, one after the other, and are not counted", async () => {
    vi.useFakeTimers();
    const made = setup();
    const { sent, client, reply } = made;
    void client.ask({ kind: "check", text: "a" });
    const [one, two] = [spare(made), spare(made)];
    await flush();
    expect([texts(sent), client.inFlight.value]).toEqual([["a"], 1]);
    reply(0, "a");
    await vi.advanceTimersByTimeAsync(1);
    expect([texts(sent), client.inFlight.value]).toEqual([["a", "s"], 0]);
    reply(1, "s");
    await flush();
    expect([one(), two(), texts(sent)]).toEqual(["there", "waits", ["a", "s", "s"]]);
    reply(2, "s");
    await flush();
    expect(two()).toBe("there");
  });

  it("wait for a kernel that runs the user's cells, and for one that was lost and is there again", async () => {
    vi.useFakeTimers();
    const occupied = state(true);
    const made = setup({ occupied });
    made.lose();
    const one = spare(made);
    occupied.value = false;
    await flush();
    expect([one(), made.sent]).toEqual(["waits", []]);
    made.renew();
    await flush();
    expect(texts(made.sent)).toEqual(["s"]);
  });

  it("give null if they fail, and if they are no longer wanted", async () => {
    vi.useFakeTimers();
    const made = setup();
    const one = spare(made);
    await flush();
    made.deliver({ id: made.sent[0]?.id, failure: { code: "x", message: "" } });
    await flush();
    expect(one()).toBe("null");
    const [ended, closed] = [new AbortController(), new AbortController()];
    fate(made.client.ask({ kind: "describe" }));
    const [two, three] = [
      spare(made, ended.signal),
      made.client.spareAll([{ kind: "check", text: "t" }], closed.signal),
    ];
    ended.abort();
    made.end.abort();
    await flush();
    expect([two(), await three, await made.client.spare({ kind: "describe" }, new AbortController().signal)]).toEqual([
      "null",
      [],
      null,
    ]);
    expect(texts(made.sent)).toEqual(["s", "describe"]);
  });

  it("are sent several at a time, each with its own answer", async () => {
    vi.useFakeTimers();
    const { sent, client, reply, deliver } = setup();
    const asked = client.spareAll(
      [
        { kind: "check", text: "a" },
        { kind: "check", text: "b" },
        { kind: "check", text: "c" },
      ],
      new AbortController().signal,
    );
    await flush();
    expect(texts(sent)).toEqual(["a", "b", "c"]);
    reply(2, "c");
    deliver({ id: sent[1]?.id, failure: { code: "x", message: "" } });
    reply(0, "a");
    expect((await asked).map((one) => one?.reply.text ?? null)).toEqual(["a", null, "c"]);
  });
});

describe("silence", () => {
  const silent = (isLoss: () => boolean = () => true) => {
    vi.useFakeTimers();
    return setup({ isSilenceLoss: isLoss });
  };

  it("makes the client send its requests again, once; then it is reported until an answer comes", async () => {
    const { sent, client, reply } = silent();
    const [a, b] = [fate(client.ask({ kind: "check", text: "a" })), fate(client.ask({ kind: "check", text: "b" }))];
    vi.advanceTimersByTime(SILENCE_MS - 1);
    expect(texts(sent)).toEqual(["a", "b"]);
    vi.advanceTimersByTime(1);
    expect([texts(sent), sent[2]?.id === sent[0]?.id, client.unanswered.value]).toEqual([
      ["a", "b", "a", "b"],
      true,
      false,
    ]);
    vi.advanceTimersByTime(SILENCE_MS - 1);
    expect(client.unanswered.value).toBe(false);
    vi.advanceTimersByTime(1);
    expect([sent.length, client.unanswered.value, client.lost.value, client.heard.value]).toEqual([4, true, false, 0]);
    reply(0, "a");
    await flush();
    expect([a(), b(), client.unanswered.value, client.heard.value]).toEqual(["there", "waits", false, 1]);
    vi.advanceTimersByTime(SILENCE_MS); // for the other request, which is counted again
    expect(texts(sent).slice(4)).toEqual(["b"]);
    reply(1, "b");
    vi.advanceTimersByTime(3 * SILENCE_MS);
    expect([sent.length, client.unanswered.value]).toEqual([5, false]);
  });

  it("is measured from the first request, and again from each message of the kernel", () => {
    const { sent, client, deliver } = silent();
    void client.ask({ kind: "check", text: "a" });
    vi.advanceTimersByTime(SILENCE_MS / 2);
    void client.ask({ kind: "check", text: "b" });
    vi.advanceTimersByTime(SILENCE_MS / 2 - 1);
    deliver({ id: sent[0]?.id, reply: { kind: "working", done: 0, total: 0 } });
    expect(texts(sent)).toEqual(["a", "b", "a"]);
    vi.advanceTimersByTime(SILENCE_MS - 1);
    expect(sent.length).toBe(3);
    vi.advanceTimersByTime(1);
    expect(texts(sent)).toEqual(["a", "b", "a", "a", "b"]);
  });

  it("is not reported without a sign of loss, if the host reports losses, or after a close or loss", async () => {
    let isLoss = false;
    const { sent, client } = silent(() => isLoss);
    void client.ask({ kind: "check", text: "a" });
    vi.advanceTimersByTime(5 * SILENCE_MS);
    expect([sent.length, client.unanswered.value]).toEqual([1, false]);
    isLoss = true;
    vi.advanceTimersByTime(2 * SILENCE_MS);
    expect([sent.length, client.unanswered.value]).toEqual([2, true]);
    const told = setup();
    void told.client.ask({ kind: "describe" });
    const [closed, lost] = [silent(), silent()];
    const fates = [closed, lost].map((made) => fate(made.client.ask({ kind: "describe" })));
    closed.end.abort();
    lost.lose();
    await vi.advanceTimersByTimeAsync(5 * SILENCE_MS);
    expect([told, closed, lost].map((made) => [made.sent.length, made.client.unanswered.value])).toEqual([
      [1, false],
      [1, false],
      [1, false],
    ]);
    expect(fates.map((one) => one())).toEqual(["closed", "lost"]);
  });

  it("that was reported is no longer reported after a loss", () => {
    const { client, lose } = silent();
    client.ask({ kind: "describe" }).catch(() => undefined);
    vi.advanceTimersByTime(2 * SILENCE_MS);
    expect(client.unanswered.value).toBe(true);
    lose();
    expect([client.unanswered.value, client.lost.value]).toEqual([false, true]);
  });
});

describe("a question", () => {
  it("names its cache, and its rule for padding if one was chosen; a cancel names no rule", async () => {
    const { sent, client, about, deliver } = setup();
    client.ask({ kind: "describe" }).catch(() => undefined);
    about.cache = { id: "one", state: "1" };
    client.padding = () => "none";
    client.latest("box", { kind: "check", text: "a" }).catch(() => undefined);
    deliver({ id: sent[1]?.id, reply: { kind: "working", done: 1, total: 2 } });
    client.leave("box");
    const [plain, check, again, givenUp] = sent;
    expect(plain).toEqual({ id: plain?.id, ask: { kind: "describe" } });
    expect(check).toEqual({
      id: check?.id,
      ask: { kind: "check", text: "a", padding: "none" },
      cache: { id: "one", state: "1" },
    });
    expect([again, givenUp]).toEqual([
      check,
      { id: givenUp?.id, ask: { kind: "give-up", id: check?.id }, cache: { id: "one", state: "1" } },
    ]);
    expect(sent.map(({ id }) => id.split("-")[1])).toEqual(["1", "2", "2", "3"]);
  });

  it("that takes long has a progress, which is there until the last long question is answered", async () => {
    const { sent, client, reply, deliver } = setup();
    const [a, b] = [client.ask({ kind: "check", text: "a" }), client.ask({ kind: "check", text: "b" })];
    const working = (index: number, done: number): void =>
      deliver({ id: sent[index]?.id, reply: { kind: "working", done, total: 9 } });
    expect(client.progress.value).toBeNull();
    working(0, 1);
    working(1, 4);
    reply(0, "a");
    await a;
    expect(client.progress.value).toEqual({ done: 4, total: 9 });
    reply(1, "b");
    await b;
    expect([client.progress.value, client.heard.value]).toEqual([null, 4]);
  });

  it.each([null, undefined, 1, "x", [], {}, { id: 1 }, { id: null }, { reply: { kind: "tokens" } }])(
    "is not answered by %j",
    (message) => {
      const { client, deliver } = setup();
      client.ask({ kind: "describe" }).catch(() => undefined);
      deliver(message);
      expect(client.heard.value).toBe(0);
    },
  );

  it("is answered once: a second answer, or a late one, is ignored", async () => {
    const { client, reply, sent } = setup();
    const asked = client.ask({ kind: "check", text: "a" });
    reply(0, "a");
    reply(0, "b");
    expect([(await asked).reply.text, client.heard.value, sent.length]).toEqual(["a", 1, 1]);
  });

  it("is refused in words that are safe to show, and its rows have names that are safe to show", async () => {
    const { sent, client, deliver } = setup();
    const refused = client.ask({ kind: "describe" });
    deliver({ id: sent[0]?.id, failure: { code: "x", message: "a\u202eb" } });
    await expect(refused).rejects.toMatchObject({ name: "RequestFailed", code: "x", message: "a‹U+202E›b" });
    const odd = client.ask({ kind: "describe" });
    deliver({ id: sent[1]?.id, reply: { kind: "tokens", tokens: [] } });
    await expect(odd).rejects.toMatchObject({
      code: "bad-answer",
      message:
        "The kernel’s reply does not match the request. Its Residscope may be another version: restart the " +
        "kernel and reload the page.",
    });
    const empty = client.ask({ kind: "describe" });
    deliver({ id: sent[2]?.id });
    await expect(empty).rejects.toMatchObject({ code: "bad-answer" });
    const named = client.ask({ kind: "attribute", by: "layer", target: { contrasts: [] } });
    deliver({
      id: sent[3]?.id,
      reply: { kind: "attribute", by: "layer", components: columnsOf(["embed", "a\u200bb"]), notes: ["n"] },
    });
    const { reply } = await named;
    expect(reply).toMatchObject({ kind: "attribute", by: "layer", notes: ["n"] });
    expect(componentsOf(reply.components).map(({ label }) => label)).toEqual(["embed", "a‹U+200B›b"]);
  });

  it.each<[string, (made: Sent) => void, string, string]>([
    ["the kernel is gone", ({ lose }) => lose(), "lost", "The kernel side of this view is gone."],
    ["the view is closed", ({ end }) => end.abort(), "closed", "The view was closed."],
  ])("is refused if %s", async (_, happen, code, message) => {
    vi.useFakeTimers();
    const made = setup();
    const asked = [made.client.ask({ kind: "describe" }), made.client.ask({ kind: "check", text: "a" })];
    happen(made);
    for (const one of asked) await expect(one).rejects.toMatchObject({ code, message });
    await vi.advanceTimersByTimeAsync(1);
    expect([made.client.inFlight.value, made.client.lost.value]).toEqual([0, code === "lost"]);
    made.reply(0); // too late
    expect(made.client.heard.value).toBe(0);
  });

  it("is sent again, unchanged, when the kernel is there again", async () => {
    vi.useFakeTimers();
    const made = setup();
    made.lose();
    const refused = made.client.ask({ kind: "describe" });
    await expect(refused).rejects.toMatchObject({ code: "lost", message: "The kernel side of this view is gone." });
    await vi.advanceTimersByTimeAsync(1);
    expect([made.client.inFlight.value, made.sent]).toEqual([0, []]);
    made.renew();
    expect(made.client.lost.value).toBe(false);
    const asked = made.client.ask({ kind: "check", text: "a" });
    made.renew(); // over another transport
    expect([texts(made.sent), made.sent[0]?.id === made.sent[1]?.id]).toEqual([["a", "a"], true]);
    made.reply(0, "a");
    expect((await asked).reply.text).toBe("a");
  });
});

it("a request that cannot be sent again to a renewed kernel fails, and the kernel counts as gone", async () => {
  const sent: string[] = [];
  let broken = false;
  const { client, renew } = setup({
    send: ({ id }) => {
      if (broken) throw new Error("Cannot send");
      sent.push(id);
    },
  });
  const asked = [client.ask({ kind: "describe" }), client.ask({ kind: "check", text: "a" })];
  broken = true;
  renew();
  for (const one of asked) await expect(one).rejects.toMatchObject({ code: "lost" });
  expect([client.lost.value, sent.length]).toEqual([true, 2]);
});

describe("buffers", () => {
  it("that are missing are empty, and a number that is cut off is left out", () => {
    expect([float32(undefined), words16(undefined)]).toEqual([new Float32Array(0), new Uint16Array(0)]);
    const bytes = Uint8Array.of(9, 1, 0, 2, 0, 3, 0, 4, 0);
    const [even, odd] = [new DataView(bytes.buffer, 0, 5), new DataView(bytes.buffer, 1, 7)];
    expect([float32(even).length, float32(odd).length, words16(even).length, [...words16(odd)]]).toEqual([
      1,
      1,
      2,
      [1, 2, 3],
    ]);
    const aligned = new DataView(new Uint16Array([7, 8, 9]).buffer, 2, 4);
    expect([[...words16(aligned)], words16(aligned).buffer === aligned.buffer]).toEqual([[8, 9], true]); // not copied
    const four = new DataView(Float32Array.of(1, 2).buffer, 4);
    expect([[...float32(four)], float32(four).buffer === four.buffer]).toEqual([[2], true]);
  });
  it.each([0, 1, 2, 3, 4])("reads numbers at offset %i", (offset) => {
    const bytes = new Uint8Array(offset + 8);
    bytes.set(new Uint8Array(new Float32Array([1.5, -2]).buffer), offset);
    expect([...float32(new DataView(bytes.buffer, offset, 8))]).toEqual([1.5, -2]);
    expect(words16(new DataView(bytes.buffer, offset, 8)).length).toBe(4);
  });
});

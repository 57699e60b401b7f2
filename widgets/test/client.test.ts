import { afterEach, describe, expect, it, vi } from "vitest";
import { type Ask, Client, float32, RequestFailed, type Transport, words16 } from "../src/client";
import type { CacheRef, Question } from "../src/protocol.gen";

function setup() {
  const sent: Question[] = [];
  let deliver: (message: unknown, buffers: DataView[]) => void = () => {};
  let lose = (): void => {};
  const transport: Transport = {
    send: (message) => sent.push(message),
    onMessage: (listener) => (deliver = listener),
    onLost: (listener) => (lose = listener),
  };
  const end = new AbortController();
  const about: { cache: CacheRef | null } = { cache: null };
  const client = new Client(transport, end.signal, () => about.cache);
  const reply = (index: number, text = ""): void =>
    deliver({ id: sent[index]?.id, reply: { kind: "check", text, tokens: [], single: false, message: "", suggestions: [] } }, []);
  const check = (text: string) => client.latest("box", { kind: "check", text });
  return { sent, client, about, reply, check, end, deliver: (m: unknown) => deliver(m, []), lose: () => lose() };
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
    await expect(a).resolves.toBeNull(); // stale: overtaken by c
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

  it("lets the next one through when an answer never came", () => {
    vi.useFakeTimers();
    const { sent, check } = setup();
    void check("a");
    vi.advanceTimersByTime(31_000);
    void check("b");
    expect(texts(sent)).toEqual(["a", "b"]);
  });
});

describe("what takes long", () => {
  const setupLong = () => {
    const made = setup();
    const working = (index: number, done: number): void => made.deliver({ id: made.sent[index]?.id, reply: { kind: "working", done, total: 9 } });
    return { ...made, working };
  };

  it("is asked for again with the same id until it is there, and says how far it is", async () => {
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

  it("is given up for a newer question, which need not wait for it", async () => {
    const { sent, client, reply, check, working } = setupLong();
    const a = check("a");
    working(0, 2);
    const b = check("b");
    await expect(a).resolves.toBeNull();
    expect(texts(sent)).toEqual(["a", "a", "give-up", "b"]);
    expect(sent[2]?.ask).toEqual({ kind: "give-up", id: sent[0]?.id });
    working(1, 4); // too late: nobody asks again
    expect(sent.length).toBe(4);
    reply(3, "b");
    expect((await b)?.reply.text).toBe("b");
    expect(client.progress.value).toBeNull();
  });

  it("is given up at the cache that was asked about, whichever is shown by then", async () => {
    const { sent, about, check, working } = setupLong();
    about.cache = { id: "one", state: "1.1.0" };
    const a = check("a");
    working(0, 2);
    about.cache = { id: "two", state: "1.1.0" };
    void check("b");
    await expect(a).resolves.toBeNull();
    expect(sent.map(({ ask, cache }) => [ask.kind, cache?.id])).toEqual([["check", "one"], ["check", "one"], ["give-up", "one"], ["check", "two"]]);
  });

  it("is given up when its view is left", async () => {
    const { sent, client, check, working } = setupLong();
    const a = check("a");
    client.leave("box"); // not known to take long: it will be there in a moment
    working(0, 2);
    client.leave("box");
    await expect(a).resolves.toBeNull();
    expect(texts(sent)).toEqual(["a", "a", "give-up"]);
  });
});

describe("ask", () => {
  it("matches answers by id, in any order, and ignores strangers", async () => {
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

  it("makes up ids that no other page makes up, whatever its random numbers", () => {
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
    [{ kind: "attention", layer: 2, head: 1, target }, { layer: 2, head: 3 }],
    [{ kind: "attention", layer: 2, head: 1, target }, { layer: 1, head: 1 }],
    [{ kind: "attention", layer: 2, head: 1, target, pool: "mean" }, { layer: 2, head: 1, pool: "peak" }],
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

  it("counts what is in flight until it can have been drawn", async () => {
    vi.useFakeTimers();
    const { client, reply } = setup();
    const asked = client.ask({ kind: "check", text: "a" });
    reply(0, "a");
    await asked;
    expect(client.inFlight.value).toBe(1);
    await vi.advanceTimersByTimeAsync(1);
    expect(client.inFlight.value).toBe(0);
  });

  it("fails what waits when the kernel side is gone or the view closes", async () => {
    const gone = setup();
    const asked = gone.client.ask({ kind: "describe" });
    gone.lose();
    await expect(asked).rejects.toMatchObject({ code: "lost" });
    await expect(gone.client.ask({ kind: "describe" })).rejects.toMatchObject({ code: "lost" });
    const broken = new Client({ send: () => { throw new Error("Cannot send"); }, onMessage: () => {} }, new AbortController().signal);
    await expect(broken.ask({ kind: "describe" })).rejects.toMatchObject({ code: "lost" });
    expect(broken.lost.value).toBe(true);
    const closed = setup();
    const other = closed.client.ask({ kind: "describe" });
    closed.end.abort();
    await expect(other).rejects.toMatchObject({ code: "closed" });
  });
});

describe("buffers", () => {
  it.each([0, 1, 2, 3, 4])("reads numbers at offset %i", (offset) => {
    const bytes = new Uint8Array(offset + 8);
    bytes.set(new Uint8Array(new Float32Array([1.5, -2]).buffer), offset);
    expect([...float32(new DataView(bytes.buffer, offset, 8))]).toEqual([1.5, -2]);
    expect(words16(new DataView(bytes.buffer, offset, 8)).length).toBe(4);
  });
});

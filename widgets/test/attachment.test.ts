import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { Listeners, listen } from "../src/base/listeners";
import { Attachment, whenIdleFor } from "../src/hosts/attachment";
import type { LinkState } from "../src/hosts/link";
import { Memory } from "../src/hosts/memory";

const READY: LinkState = { kind: "ready" };
let life: AbortController;
let told: string[];
let attachment: Attachment;

/** An attempt that settles when the test calls `settle`. */
function attempt(busy = false): { settle: (outcome: LinkState | null | Error) => Promise<void>; signal: AbortSignal } {
  let settle: (outcome: LinkState | null | Error) => void = () => undefined;
  void attachment.attempt({
    reach: () =>
      new Promise((resolve, reject) => {
        settle = (outcome) => (outcome instanceof Error ? reject(outcome) : resolve(outcome));
      }),
    busy: () => busy,
  });
  return {
    settle: async (outcome) => {
      settle(outcome);
      await vi.advanceTimersByTimeAsync(0);
    },
    signal: attachment.signal,
  };
}

beforeEach(() => {
  vi.useFakeTimers();
  life = new AbortController();
  told = [];
  attachment = new Attachment(
    {
      state: (now) => told.push("busy" in now ? `${now.kind} busy=${now.busy}` : now.kind),
      lost: () => told.push("lost"),
      renewed: () => told.push("renewed"),
    },
    { kind: "none", words: "" },
    life.signal,
  );
});
afterEach(() => {
  life.abort();
  vi.useRealTimers();
});

it("reports that it is attached before the state changes, and after a moment what it waits for", async () => {
  const { settle } = attempt(true);
  vi.advanceTimersByTime(599);
  expect(told).toEqual(["attaching busy=false"]);
  vi.advanceTimersByTime(1);
  expect(told).toEqual(["attaching busy=false", "attaching busy=true"]);
  await settle(READY);
  vi.advanceTimersByTime(10_000);
  expect(told.slice(2)).toEqual(["renewed", "ready"]);
  expect(attachment.state).toBe(READY);
});

it("ends an attempt when a newer one starts, whatever the result of the older one", async () => {
  const first = attempt(true);
  const second = attempt();
  expect(first.signal.aborted).toBe(true);
  await first.settle(READY);
  vi.advanceTimersByTime(5_000);
  expect(told).toEqual(["attaching busy=false"]); // the first attempt may no longer report "busy"
  await second.settle(READY);
  expect(told.slice(1)).toEqual(["renewed", "ready"]);
  expect(second.signal.aborted).toBe(false);
});

it("reports why it could not attach, unless the host reports it in another way", async () => {
  await attempt().settle(new Error("no way"));
  expect(attachment.state).toEqual({ kind: "refused", words: "Residscope could not attach to this kernel: no way" });
  await attempt().settle(null);
  expect(told.at(-1)).toBe("attaching busy=false");
});

it("loses an attached kernel: the signal aborts, and the loss is reported before the state changes", async () => {
  const { settle, signal } = attempt();
  await settle(READY);
  attachment.lose({ kind: "attaching", busy: false });
  expect(signal.aborted).toBe(true);
  expect(told.slice(-2)).toEqual(["lost", "attaching busy=false"]);
  expect(attachment.renew().aborted).toBe(false);
  attachment.set({ kind: "attaching", busy: false }); // the state that it already has
  expect(told.at(-2)).toBe("lost");
});

it("attaches to no kernel after its end", () => {
  const { signal } = attempt();
  life.abort();
  expect(signal.aborted).toBe(true);
  attempt();
  vi.advanceTimersByTime(5_000);
  expect(told).toEqual(["attaching busy=false"]);
});

it("waits until a kernel was idle without a break", () => {
  const end = new AbortController();
  let [idle, calls] = [true, 0];
  whenIdleFor(
    2_000,
    () => idle,
    end.signal,
    () => (calls += 1),
  );
  vi.advanceTimersByTime(1_500);
  idle = false;
  vi.advanceTimersByTime(500);
  idle = true;
  vi.advanceTimersByTime(1_500);
  expect(calls).toBe(0);
  vi.advanceTimersByTime(500);
  expect(calls).toBe(1);
  vi.advanceTimersByTime(60_000);
  expect(calls).toBe(1);
});

it("listens to Lumino's signals, VS Code's events and our own listeners until a signal ends it", () => {
  const end = new AbortController();
  const heard: unknown[] = [];
  const slots = new Set<(sender: string, args: number) => void>();
  const lumino = {
    connect: (slot: (sender: string, args: number) => void) => slots.add(slot),
    disconnect: (slot: (sender: string, args: number) => void) => slots.delete(slot),
  };
  const own = new Listeners<[number]>();
  const event = (listener: (args: number) => void) => {
    const heard = new AbortController();
    own.add(listener, heard.signal);
    return { dispose: () => heard.abort() };
  };
  listen(lumino, (args) => heard.push(args), end.signal);
  listen(event, (args) => heard.push(args), end.signal);
  own.add((args) => heard.push(args), end.signal);
  for (const slot of slots) slot("sender", 1);
  own.notify(2);
  expect(heard).toEqual([1, 2, 2]);
  end.abort();
  expect([slots.size, own.size]).toEqual([0, 0]);
  listen(lumino, () => undefined, end.signal);
  own.add(() => undefined, end.signal);
  expect([slots.size, own.size]).toEqual([0, 0]);
});

it("remembers the latest 50 notebooks, under their present names", () => {
  let stored: unknown;
  const memory = new Memory((all) => (stored = all));
  for (let i = 0; i < 51; i += 1) memory.set({ path: `${i}`, name: "cache", selection: null });
  memory.move("50", "new");
  memory.move("nowhere", "else");
  expect([memory.get("0"), memory.get("50"), memory.get("else")]).toEqual([null, null, null]);
  const again = new Memory(() => undefined);
  again.set({ path: "1", name: "newer", selection: null });
  again.load(stored);
  expect(again.all.map(({ path }) => path).slice(-2)).toEqual(["new", "1"]);
  expect([again.all.length, again.get("1")?.name, again.get("2")?.name]).toEqual([50, "newer", "cache"]);
});

it.each([undefined, null, 7, "text", [7], { path: {} }])("remembers nothing if nothing was stored: %j", (stored) => {
  const memory = new Memory(() => undefined);
  memory.load(stored);
  expect(memory.all).toEqual([]);
});

it("reads an object with paths as keys like a list", () => {
  const memory = new Memory(() => undefined);
  memory.load({ "a.ipynb": { path: "a.ipynb", name: "cache", selection: { tab: "nonsense", topK: 7 } } });
  expect(memory.get("a.ipynb")?.selection).toMatchObject({ tab: "attention", topK: 7 });
});

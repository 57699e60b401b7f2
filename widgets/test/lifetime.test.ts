import { signal as state } from "@preact/signals-core";
import { describe, expect, it, vi } from "vitest";
import { child, later, until, watch } from "../src/base/lifetime";

describe("a lifetime that has already ended", () => {
  it.each<[string, (ended: AbortSignal, body: () => void) => unknown]>([
    ["a watcher", watch],
    ["a timer", (ended, body) => later(0, ended, body)],
  ])("never calls %s", (_, start) => {
    vi.useFakeTimers();
    const body = vi.fn();
    start(AbortSignal.abort(), body);
    vi.runAllTimers();
    vi.useRealTimers();
    expect(body).not.toHaveBeenCalled();
  });

  it("does not run a watcher again that has ended itself in its first run", () => {
    const [count, end] = [state(0), new AbortController()];
    const body = vi.fn(() => (void count.value, end.abort()));
    watch(end.signal, body);
    count.value += 1;
    expect(body).toHaveBeenCalledOnce();
  });

  it("waits for nothing", () => expect(until(state(false), AbortSignal.abort())).resolves.toBeUndefined());
});

describe("a timer", () => {
  it("leaves no listener on its lifetime after it has run", () => {
    vi.useFakeTimers();
    const { signal } = new AbortController();
    const [added, removed] = [vi.spyOn(signal, "addEventListener"), vi.spyOn(signal, "removeEventListener")];
    const body = vi.fn();
    later(10, signal, body);
    vi.advanceTimersByTime(10);
    vi.useRealTimers();
    expect(body).toHaveBeenCalledOnce();
    expect(removed.mock.calls.map(([, listener]) => listener)).toEqual(
      added.mock.calls.map(([, listener]) => listener),
    );
  });
});

describe("a child", () => {
  it.each([0, 1])("ends with each of its parents: %i", (at) => {
    const parents = [new AbortController(), new AbortController()];
    const { signal } = child(...parents.map((parent) => parent.signal));
    expect(signal.aborted).toBe(false);
    parents[at]?.abort();
    expect(signal.aborted).toBe(true);
    expect(child(...parents.map((parent) => parent.signal)).signal.aborted).toBe(true);
  });
});

import { signal as state } from "@preact/signals-core";
import { describe, expect, it, vi } from "vitest";
import { later, until, watch } from "../src/base/lifetime";

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

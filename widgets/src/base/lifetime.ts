// Every subscription ends when its AbortSignal aborts.
import { effect, type ReadonlySignal } from "@preact/signals-core";

/** Runs `body` now and whenever a signal that it read changes, until `signal` aborts. */
export function watch(signal: AbortSignal, body: () => void): void {
  if (signal.aborted) return;
  const dispose = effect(() => {
    body();
  });
  // `body` itself may have aborted the signal.
  if (signal.aborted) dispose();
  else signal.addEventListener("abort", dispose, { once: true });
}

/** A controller that aborts with the first of its parents, and can be aborted earlier. */
export function child(...parents: AbortSignal[]): AbortController {
  const controller = new AbortController();
  for (const parent of parents) {
    if (parent.aborted) controller.abort();
    parent.addEventListener("abort", () => controller.abort(), { once: true, signal: controller.signal });
  }
  return controller;
}

/** Calls `body` after `ms` milliseconds, unless `signal` aborts earlier or has already aborted. */
export function later(ms: number, signal: AbortSignal, body: () => void): void {
  if (signal.aborted) return;
  const stop = (): void => clearTimeout(timer);
  const timer = setTimeout(() => {
    signal.removeEventListener("abort", stop);
    body();
  }, ms);
  signal.addEventListener("abort", stop, { once: true });
}

/** Waits until `condition` is true, or `signal` aborts. */
export async function until(condition: ReadonlySignal<boolean>, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  const waiting = child(signal);
  await new Promise<void>((settle) => {
    waiting.signal.addEventListener("abort", () => settle(), { once: true });
    watch(waiting.signal, () => condition.value && waiting.abort());
  });
}

/** A new element with classes and attributes; strings become text nodes, never HTML. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className = "",
  attributes: Record<string, string> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  if (className) node.className = className;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

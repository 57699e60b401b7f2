/** A timeout that counts only while a kernel is idle. */

const LOOK_MS = 500;

/** Calls `body` when `idle` has been true for `ms` without a break, unless `signal` aborts before. */
export function whenIdleFor(ms: number, idle: () => boolean, signal: AbortSignal, body: () => void): void {
  if (signal.aborted) return;
  let since = Date.now();
  const timer = setInterval(() => {
    if (!idle()) since = Date.now();
    else if (Date.now() - since >= ms) {
      clearInterval(timer);
      body();
    }
  }, LOOK_MS);
  signal.addEventListener("abort", () => clearInterval(timer), { once: true });
}

/** How long to wait for a kernel that has nothing else to do. */

const LOOK_MS = 500;

/** Calls `body` once `idle` was true for `ms` on end, unless `signal` aborts before. */
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

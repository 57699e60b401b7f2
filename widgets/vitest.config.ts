import { defineConfig } from "vitest/config";

// One page for all files: making one for each takes longer than the tests. Every view ends with its AbortSignal.
export default defineConfig({
  test: { environment: "happy-dom", include: ["test/**/*.test.ts"], pool: "threads", isolate: false },
});

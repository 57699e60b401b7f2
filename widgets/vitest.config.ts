import { defineConfig } from "vitest/config";

// All test files share one page, because a page for each file takes longer than the tests. A view leaves nothing behind
// when its AbortSignal aborts.
export default defineConfig({
  test: {
    environment: "happy-dom",
    include: ["test/**/*.test.ts"],
    setupFiles: ["test/patience.ts", "test/oldest-browsers.ts", "test/after-each.ts"],
    testTimeout: 30_000,
    pool: "threads",
    isolate: false,
    reporters: process.env.RESIDSCOPE_RECORD ? ["default", "../.dev/record-run.mjs"] : ["default"],
  },
});

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  test: { reporters: process.env.RESIDSCOPE_RECORD ? ["default", "../../.dev/record-run.mjs"] : ["default"] },
  resolve: { alias: { vscode: here("test/fake-vscode.ts") } },
  plugins: [
    {
      name: "python as text",
      load: (id) => (id.endsWith(".py") ? `export default ${JSON.stringify(readFileSync(id, "utf8"))}` : null),
    },
  ],
});

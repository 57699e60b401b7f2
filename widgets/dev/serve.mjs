// Builds the harness in a folder outside the repository, and serves it: node dev/serve.mjs [port]
import { copyFileSync, existsSync, mkdirSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { dirname, extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { BROWSERS } from "../browsers.mjs";
import { folders, stylesheet } from "../styles.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const out = join(tmpdir(), "residscope-dev");
mkdirSync(out, { recursive: true });
const common = { bundle: true, target: BROWSERS, logLevel: "warning", sourcemap: "inline" };
async function rebuild() {
  await build({ ...common, entryPoints: [join(here, "harness.ts")], format: "esm", outfile: join(out, "harness.js") });
  await build({ ...common, entryPoints: [stylesheet], plugins: [folders], outfile: join(out, "panel.css") });
  copyFileSync(join(here, "index.html"), join(out, "index.html"));
}
const types = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };
createServer(async (request, response) => {
  const name = new URL(request.url, "http://x").pathname.slice(1) || "index.html";
  if (name === "index.html") await rebuild();
  const file = join(out, name);
  if (name.includes("/") || !existsSync(file)) return response.writeHead(404).end();
  response
    .writeHead(200, { "content-type": types[extname(name)] ?? "text/plain", "cache-control": "no-store" })
    .end(readFileSync(file));
}).listen(Number(process.argv[2] ?? 8123), "127.0.0.1", () =>
  console.log(`http://127.0.0.1:${process.argv[2] ?? 8123}`),
);

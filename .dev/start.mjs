/** `npm start`: set up, then JupyterLab on the example notebook. `npm start -- ARGUMENTS` go to `residscope demo`. */

import { main, python, run } from "./lib.mjs";
import { setUp } from "./setup.mjs";

main(() => {
  setUp();
  run(python, ["-m", "residscope.demo.cli", "demo", ...process.argv.slice(2)]);
});

/** `npm start`: sets up, then opens the example in JupyterLab. Arguments after `--` go to `residscope demo`. */

import { main, python, run } from "./lib.mjs";
import { setUp } from "./setup.mjs";

main(() => {
  setUp();
  run(python, ["-m", "residscope.demo.cli", "demo", ...process.argv.slice(2)]);
});

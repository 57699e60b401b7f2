// Bundles the styles. `@import "./views/*.css"` takes all files of that folder, in the order of their names.
import { readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const stylesheet = join(dirname(fileURLToPath(import.meta.url)), "src", "styles", "panel.css");

/** A plugin for esbuild. */
export const folders = {
  name: "folders",
  setup(build) {
    build.onResolve({ filter: /\/\*\.css$/ }, ({ path, resolveDir }) => ({
      path: join(resolveDir, dirname(path)),
      namespace: "folder",
    }));
    build.onLoad({ filter: /.*/, namespace: "folder" }, ({ path }) => {
      const names = readdirSync(path).flatMap((file) => (file.endsWith(".css") ? [file.slice(0, -4)] : []));
      const imports = names.sort().map((name) => `@import "./${name}.css";`);
      return { contents: imports.join("\n"), loader: "css", resolveDir: path };
    });
  },
};

/** The Residscope extension for JupyterLab and Notebook 7: its plugins and their commands. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from "@jupyterlab/application";
import { ICommandPalette, showErrorMessage } from "@jupyterlab/apputils";
import { IDefaultFileBrowser } from "@jupyterlab/filebrowser";
import { ILauncher } from "@jupyterlab/launcher";

import { copyExample } from "./example";
import { helpPlugin } from "./help";
import { residscopeIcon } from "./icon";
import { savedPlugin } from "./saved-panel";
import { sidebarPlugin } from "./sidebar";

/** The ids of the commands, which other extensions and tests may rely on. */
export const CommandIDs = {
  /** Copies the example notebook into `cwd` (default: the file browser's folder) and opens it. */
  openExample: "residscope:open-example",
} as const;

const example: JupyterFrontEndPlugin<void> = {
  id: "@residscope/jupyterlab:example",
  description: "Opens a copy of Residscope's example notebook from the launcher or the command palette.",
  autoStart: true,
  optional: [ICommandPalette, ILauncher, IDefaultFileBrowser],
  activate: (
    app: JupyterFrontEnd,
    palette: ICommandPalette | null,
    launcher: ILauncher | null,
    files: IDefaultFileBrowser | null,
  ) => {
    app.commands.addCommand(CommandIDs.openExample, {
      label: (args) => (args.isPalette ? "Residscope: Open the Example Notebook" : "Residscope Example"),
      caption: "Copy Residscope's example notebook into this folder and open it",
      icon: (args) => (args.isPalette ? undefined : residscopeIcon),
      execute: async (args) => {
        const folder = typeof args.cwd === "string" ? args.cwd : (files?.model.path ?? "");
        try {
          const path = await copyExample(app.serviceManager.contents, folder);
          return await app.commands.execute("docmanager:open", { path, factory: "Notebook" });
        } catch (error) {
          const reason = error instanceof Error ? error.message : String(error);
          await showErrorMessage(
            "The example notebook could not be opened",
            `Nothing was overwritten. Try a folder that you can write to. (${reason})`,
          );
        }
      },
    });
    palette?.addItem({ command: CommandIDs.openExample, category: "Residscope", args: { isPalette: true } });
    launcher?.add({ command: CommandIDs.openExample, category: "Other", rank: 10 });
  },
};

export default [example, helpPlugin, sidebarPlugin, savedPlugin];

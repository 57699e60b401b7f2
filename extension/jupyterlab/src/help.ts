/**
 * The plugin of "Help": a tab (in Notebook 7, a dialog) with the documentation, which is part of the extension. No text
 * comes from the network.
 */

import { ILabShell, ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from "@jupyterlab/application";
import { Dialog, ICommandPalette, MainAreaWidget, WidgetTracker } from "@jupyterlab/apputils";
import { Widget } from "@lumino/widgets";
import {
  asChapter,
  type Chapter,
  type ChapterTexts,
  chapterOf,
  followTheme,
  HELP_EVENT,
  type HelpView,
  mountHelp,
  untracked,
  watch,
} from "@residscope/widgets";

import { residscopeIcon } from "./icon";

/** The id of the command, which other extensions and tests may rely on. */
export const HELP = "residscope:help";

const FIRST: Chapter = "panel";

async function textOf(chapter: Chapter): Promise<string> {
  const { default: texts } = (await import("@residscope/widgets/help.json")) as { default: ChapterTexts };
  return texts[chapter];
}

/** A chapter, and the list of all chapters. */
class HelpWidget extends Widget {
  readonly view: HelpView;
  readonly #end = new AbortController();
  readonly signal = this.#end.signal;

  constructor(chapter: Chapter) {
    super();
    this.addClass("rs-host");
    const root = document.createElement("div");
    root.className = "residscope rs-help-page";
    this.node.append(root);
    followTheme(root, this.#end.signal);
    this.view = mountHelp(root, chapter, textOf, this.#end.signal);
  }

  override dispose(): void {
    this.#end.abort();
    super.dispose();
  }
}

export const helpPlugin: JupyterFrontEndPlugin<void> = {
  id: "@residscope/jupyterlab:help",
  description: "Opens Residscope's documentation in a tab: from a panel, the sidebar, the palette or the Help menu.",
  autoStart: true,
  optional: [ICommandPalette, ILabShell, ILayoutRestorer],
  activate: (
    app: JupyterFrontEnd,
    palette: ICommandPalette | null,
    labShell: ILabShell | null,
    restorer: ILayoutRestorer | null,
  ) => {
    const tabs = new WidgetTracker<MainAreaWidget<HelpWidget>>({ namespace: "residscope-help" });
    const openTab = (chapter: Chapter): MainAreaWidget<HelpWidget> => {
      const open = tabs.currentWidget;
      if (open) {
        open.content.view.open(chapter);
        app.shell.activateById(open.id);
        return open;
      }
      const tab = new MainAreaWidget({ content: new HelpWidget(chapter) });
      tab.id = "residscope-help";
      tab.title.label = "Residscope Help";
      tab.title.icon = residscopeIcon;
      tab.title.closable = true;
      tab.toolbar.hide();
      app.shell.add(tab, "main", { mode: "tab-after" });
      app.shell.activateById(tab.id);
      void tabs.add(tab);
      watch(tab.content.signal, () => {
        void tab.content.view.chapter.value;
        // A reload of the page opens this chapter again, if JupyterLab can save it.
        untracked(() => void tabs.save(tab).catch(() => undefined));
      });
      return tab;
    };
    /** Notebook 7 has no tabs. */
    const openDialog = (chapter: Chapter): void => {
      const body = new HelpWidget(chapter);
      body.addClass("rs-help-dialog");
      const buttons = [Dialog.okButton({ label: "Close" })];
      void new Dialog({ title: "Residscope Help", body, buttons, hasClose: true }).launch();
    };
    app.commands.addCommand(HELP, {
      label: (args) => (args.isPalette ? "Residscope: Help" : "Residscope Reference"),
      caption: "Open Residscope’s documentation, which is part of the extension",
      describedBy: {
        args: {
          type: "object",
          properties: { chapter: { type: "string", description: "The name of a chapter, such as “why”" } },
        },
      },
      execute: (args) => {
        const chapter = asChapter(args.chapter) ?? FIRST;
        return labShell ? openTab(chapter) : openDialog(chapter);
      },
    });
    palette?.addItem({ command: HELP, category: "Residscope", args: { isPalette: true } });
    // Panels and the sidebar request a chapter by an event. Any part of the page can send such an event, so only the
    // names of our chapters are accepted.
    document.addEventListener(HELP_EVENT, (event) => {
      const chapter = chapterOf(event);
      if (!chapter) return;
      event.preventDefault();
      void app.commands.execute(HELP, { chapter });
    });
    void restorer?.restore(tabs, {
      command: HELP,
      args: (tab) => ({ chapter: tab.content.view.chapter.peek() }),
      name: () => "residscope-help",
    });
  },
};

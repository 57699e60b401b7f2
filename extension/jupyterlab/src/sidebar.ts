/** The plugin of the sidebar. It adds the sidebar and its commands, and restores open views after a reload. */

import { ILabShell, ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from "@jupyterlab/application";
import { ICommandPalette, WidgetTracker } from "@jupyterlab/apputils";
import { IConsoleTracker } from "@jupyterlab/console";
import { INotebookTracker } from "@jupyterlab/notebook";
import { ISettingRegistry } from "@jupyterlab/settingregistry";
import { IStateDB } from "@jupyterlab/statedb";
import { UUID } from "@lumino/coreutils";
import { asOpened, child, type Inspection, type Opened, untracked, watch } from "@residscope/widgets";

import { asArgs, memoryIn } from "./memory";
import { JupyterPlaces } from "./places";
import { applySettings, DEFAULTS } from "./settings";
import { SidebarWidget, ViewWidget } from "./widgets";

const ID = "@residscope/jupyterlab:sidebar";

/** The ids of the commands, which other extensions and tests may rely on. */
export const CommandIDs = {
  /** Shows the sidebar, and in it the cache `name` (default: the only cache, if there is only one). */
  inspect: "residscope:inspect-cache",
  /** Opens a view in the main area: the one that the sidebar shows, or `{ path, name }`. */
  open: "residscope:open-in-main-area",
  next: "residscope:next-head",
  previous: "residscope:previous-head",
  refresh: "residscope:list-caches",
} as const;

/** The panel has its wide layout from this width on, as in the styles. */
const WIDE_PX = 560;
/** The palette gives the focus back to the notebook within this time after a command. */
const FOCUS_AFTER_MS = 60;

export const sidebarPlugin: JupyterFrontEndPlugin<void> = {
  id: ID,
  description:
    "Lists the activation caches of running kernels and inspects them, next to the notebook or in the main area.",
  autoStart: true,
  requires: [INotebookTracker],
  optional: [IConsoleTracker, ICommandPalette, ILabShell, ILayoutRestorer, ISettingRegistry, IStateDB],
  activate,
};

function activate(
  app: JupyterFrontEnd,
  notebooks: INotebookTracker,
  consoles: IConsoleTracker | null,
  palette: ICommandPalette | null,
  labShell: ILabShell | null,
  restorer: ILayoutRestorer | null,
  registry: ISettingRegistry | null,
  stateDB: IStateDB | null,
): void {
  const { memory, loaded } = memoryIn(stateDB);
  const life = new AbortController();
  const views = new WidgetTracker<ViewWidget>({ namespace: "residscope-views" });
  /** Saves the view, to open it again after a reload of the page. If saving fails, nothing else is lost. */
  const remember = (view: ViewWidget): void => void views.save(view).catch(() => undefined);
  const places = new JupyterPlaces(
    app,
    [notebooks, consoles],
    {
      moved: (from, to) => {
        memory.move(from, to);
        views.forEach((view) => {
          if (view.opened.path !== from) return;
          view.moved(to);
          remember(view);
        });
        sidebar.sidebar.drop(from);
      },
      closed: (path) => detachIfUnused(path),
    },
    life.signal,
  );
  /** Detaches from a kernel that no open notebook, view or sidebar uses any more. */
  const detachIfUnused = (path: string): void => {
    if (places.isOpen(path) || sidebar.sidebar.path === path || views.find((view) => view.opened.path === path)) return;
    sidebar.sidebar.drop(path);
    places.forget(path);
  };
  // The sidebar is added before anything is awaited, because JupyterLab restores its layout only with widgets that
  // already exist.
  const sidebar = new SidebarWidget({
    places,
    caches: (path) => places.caches(path),
    remembered: async (path) => {
      await loaded;
      return memory.get(path);
    },
    remember: (opened) => memory.set(opened),
    onLeave: (path) => detachIfUnused(path),
    ...(labShell ? { enlarge: (opened: Opened) => void app.commands.execute(CommandIDs.open, asArgs(opened)) } : {}),
  });
  app.shell.add(sidebar, DEFAULTS.side, { rank: 600 });
  restorer?.add(sidebar, sidebar.id);

  const current = (): Inspection | null =>
    app.shell.currentWidget === views.currentWidget && views.currentWidget
      ? views.currentWidget.content.inspection
      : sidebar.sidebar.inspection;
  const { commands } = app;
  commands.addCommand(CommandIDs.inspect, {
    label: "Residscope: Inspect Activation Cache",
    caption: "Show the activation caches of the focused notebook’s kernel, and open one",
    describedBy: {
      args: {
        type: "object",
        properties: { name: { type: "string", description: "The cache’s variable; by default the only cache" } },
      },
    },
    execute: ({ name }) => {
      app.shell.activateById(sidebar.id);
      sidebar.sidebar.inspect(typeof name === "string" ? name : null);
      // After the command, the palette gives the focus to the notebook. So the sidebar takes the focus a little later.
      setTimeout(() => sidebar.sidebar.focus(), FOCUS_AFTER_MS);
    },
  });
  commands.addCommand(CommandIDs.open, {
    label: "Residscope: Open in Main Area",
    caption: "Open the cache of the sidebar in a separate tab",
    describedBy: {
      args: {
        type: "object",
        properties: { path: { type: "string" }, name: { type: "string" }, selection: { type: "object" } },
      },
    },
    isEnabled: (args) => labShell !== null && (typeof args.name === "string" || sidebar.sidebar.inspection !== null),
    execute: (args) => {
      const opened = asOpened(args);
      if (!opened) return void sidebar.sidebar.enlarge();
      const id = typeof args.id === "string" ? args.id : `residscope-view-${UUID.uuid4()}`;
      const view = new ViewWidget(places.caches(opened.path), opened, id);
      app.shell.add(view, "main", { mode: isWideEnoughForTwo() ? "split-right" : "tab-after" });
      void views.add(view);
      const viewEnd = child(life.signal);
      watch(viewEnd.signal, () => {
        void view.content.inspection.selection.value;
        untracked(() => remember(view));
      });
      view.disposed.connect(() => {
        viewEnd.abort();
        detachIfUnused(view.opened.path);
      });
      return view;
    },
  });
  for (const [id, label, step] of [
    [CommandIDs.next, "Next Head", 1],
    [CommandIDs.previous, "Previous Head", -1],
  ] as const) {
    commands.addCommand(id, {
      label: `Residscope: ${label}`,
      caption: "From the strongest head to the weakest",
      describedBy: { args: {} },
      isEnabled: () => current() !== null,
      execute: () => current()?.store.step(step),
    });
  }
  commands.addCommand(CommandIDs.refresh, {
    label: "Residscope: List Caches Again",
    describedBy: { args: {} },
    execute: () => sidebar.sidebar.refresh(),
  });
  for (const command of Object.values(CommandIDs)) palette?.addItem({ command, category: "Residscope" });

  void restorer?.restore(views, {
    command: CommandIDs.open,
    args: (view) => ({ ...asArgs(view.present), id: view.id }),
    name: (view) => view.id,
  });
  if (registry) void applySettings(registry, ID, app, sidebar, places, life.signal);
}

/** Whether half of the main area is wide enough for the wide layout. If not, a view opens as a tab. */
function isWideEnoughForTwo(): boolean {
  return (document.getElementById("jp-main-dock-panel")?.clientWidth ?? 0) >= 2 * WIDE_PX;
}

/** The sidebar's plugin: its place, its commands, its settings, and what is put back after a reload. */

import { ILabShell, ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from "@jupyterlab/application";
import { ICommandPalette, WidgetTracker } from "@jupyterlab/apputils";
import { IConsoleTracker } from "@jupyterlab/console";
import { INotebookTracker } from "@jupyterlab/notebook";
import { ISettingRegistry } from "@jupyterlab/settingregistry";
import { IStateDB } from "@jupyterlab/statedb";
import { type ReadonlyPartialJSONObject, UUID } from "@lumino/coreutils";
import { asSelection, effect, type Inspection, type Opened, untracked } from "@residscope/widgets";

import { JupyterPlaces } from "./places";
import { SidebarWidget, ViewWidget } from "./widgets";

const ID = "@residscope/jupyterlab:sidebar";

/** The commands, by the names that other extensions and tests may rely on. */
export const CommandIDs = {
  /** Show the sidebar, and in it the cache `name` (default: the only one there is). */
  inspect: "residscope:inspect-cache",
  /** Open a view in the main area: what the sidebar shows, or `{ path, name }`. */
  open: "residscope:open-in-main-area",
  next: "residscope:next-head",
  previous: "residscope:previous-head",
  refresh: "residscope:list-caches",
} as const;

/** Longer than the palette takes to give the focus back. */
const FOCUS_BACK_MS = 60;

interface Settings {
  side: "left" | "right";
  followFocus: boolean;
  refresh: "cells" | "poll";
  pollSeconds: number;
}
const DEFAULTS: Settings = { side: "right", followFocus: true, refresh: "cells", pollSeconds: 3 };

export const sidebarPlugin: JupyterFrontEndPlugin<void> = {
  id: ID,
  description: "Lists the activation caches of running kernels and inspects them, beside the notebook or in the main area.",
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
  const memory = new Memory(stateDB);
  const life = new AbortController();
  const views = new WidgetTracker<ViewWidget>({ namespace: "residscope-views" });
  const places = new JupyterPlaces(app, [notebooks, consoles], (from, to) => {
    memory.move(from, to);
    views.forEach((view) => {
      if (view.opened.path !== from) return;
      view.opened = { ...view.opened, path: to };
      void views.save(view);
    });
    sidebar.sidebar.drop(from);
  }, life.signal);
  // Added before anything is awaited: JupyterLab restores its layout with what is there by then.
  const sidebar = new SidebarWidget({
    places,
    caches: (path) => places.caches(path),
    remembered: (path) => memory.get(path),
    remember: (opened) => memory.set(opened),
    ...(labShell ? { enlarge: (opened: Opened) => void app.commands.execute(CommandIDs.open, asArgs(opened)) } : {}),
  });
  app.shell.add(sidebar, DEFAULTS.side, { rank: 600 });
  restorer?.add(sidebar, sidebar.id);

  const current = (): Inspection | null =>
    app.shell.currentWidget === views.currentWidget && views.currentWidget ? views.currentWidget.content.inspection : sidebar.sidebar.inspection;
  const { commands } = app;
  commands.addCommand(CommandIDs.inspect, {
    label: "Residscope: Inspect Activation Cache",
    caption: "Show the activation caches of the focused notebook’s kernel, and look into one",
    describedBy: { args: { type: "object", properties: { name: { type: "string", description: "The cache’s variable; by default the only one there is" } } } },
    execute: ({ name }) => {
      app.shell.activateById(sidebar.id);
      sidebar.sidebar.inspect(typeof name === "string" ? name : null);
      // Once more: the palette gives the focus back to the notebook after the command has run.
      setTimeout(() => sidebar.sidebar.focus(), FOCUS_BACK_MS);
    },
  });
  commands.addCommand(CommandIDs.open, {
    label: "Residscope: Open in Main Area",
    caption: "Open the cache that the sidebar shows in a tab of its own",
    describedBy: { args: { type: "object", properties: { path: { type: "string" }, name: { type: "string" }, selection: { type: "object" } } } },
    isEnabled: (args) => labShell !== null && (typeof args.name === "string" || sidebar.sidebar.inspection !== null),
    execute: (args) => {
      const opened = fromArgs(args);
      if (!opened) return void sidebar.sidebar.enlarge();
      const id = typeof args.id === "string" ? args.id : `residscope-view-${UUID.uuid4()}`;
      const view = new ViewWidget(places.caches(opened.path), opened, id);
      app.shell.add(view, "main", { mode: "split-right" });
      void views.add(view);
      const stop = effect(() => {
        void view.content.inspection.selection.value;
        untracked(() => void views.save(view));
      });
      view.disposed.connect(stop);
      return view;
    },
  });
  for (const [id, label, by] of [[CommandIDs.next, "Next Head", 1], [CommandIDs.previous, "Previous Head", -1]] as const) {
    commands.addCommand(id, {
      label: `Residscope: ${label}`,
      caption: "From the strongest head to the weakest",
      describedBy: { args: {} },
      isEnabled: () => current() !== null,
      execute: () => current()?.store.step(by),
    });
  }
  commands.addCommand(CommandIDs.refresh, {
    label: "Residscope: List Caches Again",
    describedBy: { args: {} },
    execute: () => sidebar.sidebar.refresh(),
  });
  for (const command of Object.values(CommandIDs)) palette?.addItem({ command, category: "Residscope" });

  void restorer?.restore(views, { command: CommandIDs.open, args: (view) => ({ ...asArgs(view.now), id: view.id }), name: (view) => view.id });
  follow(app, sidebar, places, registry);
}

/** Does what the settings say, now and when they change. */
function follow(app: JupyterFrontEnd, sidebar: SidebarWidget, places: JupyterPlaces, registry: ISettingRegistry | null): void {
  let timer: ReturnType<typeof setInterval> | undefined;
  let { side } = DEFAULTS;
  const apply = (settings: Settings): void => {
    if (settings.side !== side) {
      side = settings.side;
      app.shell.add(sidebar, side, { rank: 600 });
    }
    places.follow.value = settings.followFocus;
    clearInterval(timer);
    if (settings.refresh === "poll") timer = setInterval(() => sidebar.isVisible && sidebar.sidebar.refresh(), settings.pollSeconds * 1000);
  };
  registry?.load(ID).then(
    (loaded) => {
      const read = (): void => apply({ ...DEFAULTS, ...(loaded.composite as Partial<Settings>) });
      loaded.changed.connect(read);
      read();
    },
    (error: unknown) => console.warn("Residscope’s settings could not be read; the defaults hold.", error),
  );
}

/** What was looked at in each notebook, over a reload. */
class Memory {
  readonly #all: Record<string, Opened> = {};
  readonly #loaded: Promise<void>;
  constructor(readonly db: IStateDB | null) {
    // Not to be awaited in a plugin's activation: the database opens when all are active.
    this.#loaded = this.#load();
  }
  async #load(): Promise<void> {
    const saved = (await this.db?.fetch(ID)) as Record<string, ReadonlyPartialJSONObject> | undefined;
    for (const [path, args] of Object.entries(saved ?? {})) {
      const opened = fromArgs(args);
      if (opened) this.#all[path] ??= opened;
    }
  }
  async get(path: string): Promise<Opened | null> {
    await this.#loaded;
    return this.#all[path] ?? null;
  }
  set(opened: Opened): void {
    this.#all[opened.path] = opened;
    this.#save();
  }
  move(from: string, to: string): void {
    const opened = this.#all[from];
    if (!opened) return;
    delete this.#all[from];
    this.set({ ...opened, path: to });
  }
  #save(): void {
    const entries = Object.entries(this.#all).slice(-50);
    void this.db?.save(ID, Object.fromEntries(entries.map(([path, opened]) => [path, asArgs(opened)])));
  }
}

function asArgs({ path, name, selection }: Opened): ReadonlyPartialJSONObject {
  return { path, name, selection: selection as unknown as ReadonlyPartialJSONObject };
}

function fromArgs({ path, name, selection }: ReadonlyPartialJSONObject): Opened | null {
  if (typeof path !== "string" || typeof name !== "string") return null;
  return { path, name, selection: asSelection(selection) };
}

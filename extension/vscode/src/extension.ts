/** The extension's entry: the sidebar in the activity bar, views in editor tabs, and the commands. */

import { child, listen, type Opened, shown } from "@residscope/widgets/node";
import {
  commands,
  type ExtensionContext,
  extensions,
  Uri,
  ViewColumn,
  type WebviewPanel,
  type WebviewView,
  window,
  workspace,
} from "vscode";

import { Hub } from "./hub";
import { asOpened, memoryIn } from "./memory";
import type { Command, ToPage } from "./messages";
import { nameOf } from "./notebooks";
import { openChapter, Page } from "./page";
import { Pictures } from "./pictures";

const VIEW = "residscope.caches";
const TAB = "residscope.view";

export function activate(context: ExtensionContext): void {
  const life = new AbortController();
  const assets = Uri.joinPath(context.extensionUri, "dist");
  const icon = Uri.joinPath(context.extensionUri, "media", "icon.png");
  const pictures = new Pictures(Uri.joinPath(context.storageUri ?? context.globalStorageUri, "pictures"));
  const hub = new Hub(assets, memoryIn(context.workspaceState), pictures, (opened) => openTab(opened), life.signal);
  /** The page that the user used last. The commands "next head" and "previous head" go there. */
  let current: Page | null = null;
  let sidebar: Page | null = null;
  /** Commands for a sidebar that is being opened. */
  let pendingCommands: ToPage[] = [];

  /** Our visible views. The key bindings work while at least one view is visible. */
  const visibleViews = new Set<WebviewView | WebviewPanel>();
  function setVisible(view: WebviewView | WebviewPanel, page: Page, visible: boolean): void {
    page.show(visible);
    if (visible) visibleViews.add(view);
    else visibleViews.delete(view);
    void commands.executeCommand("setContext", "residscope.active", visibleViews.size > 0);
  }

  function openSidebar(view: WebviewView): void {
    const end = child(life.signal);
    const page: Page = new Page(
      view.webview,
      hub,
      () => ({ say: "sidebar", remembered: hub.memory.all }),
      () => (current = page),
      end.signal,
    );
    hub.add(page);
    sidebar = current = page;
    for (const command of pendingCommands.splice(0)) page.post(command);
    setVisible(view, page, view.visible);
    listen(
      view.onDidChangeVisibility,
      () => {
        setVisible(view, page, view.visible);
        if (view.visible) current = page;
      },
      end.signal,
    );
    listen(
      view.onDidDispose,
      () => {
        setVisible(view, page, false);
        end.abort();
        if (sidebar === page) sidebar = null;
        if (current === page) current = null;
      },
      end.signal,
    );
  }

  function openTab(opened: Opened): void {
    const panel = window.createWebviewPanel(TAB, shown(opened.name), ViewColumn.Beside, {
      retainContextWhenHidden: true,
    });
    fillTab(panel, opened);
  }

  function fillTab(panel: WebviewPanel, first: Opened): void {
    const end = child(life.signal);
    let opened = first;
    const updateTitle = (): void => void (panel.title = `${shown(opened.name)} · ${shown(nameOf(opened.path))}`);
    updateTitle();
    panel.iconPath = icon;
    listen(
      hub.renamed.event,
      ({ from, to }) => {
        if (opened.path !== from) return;
        opened = { ...opened, path: to };
        updateTitle();
        page.post({ say: "view", opened });
      },
      end.signal,
    );
    const page: Page = new Page(
      panel.webview,
      hub,
      () => ({ say: "view", opened }),
      () => (current = page),
      end.signal,
    );
    hub.add(page);
    if (panel.active) current = page;
    setVisible(panel, page, panel.visible);
    listen(
      panel.onDidChangeViewState,
      () => {
        setVisible(panel, page, panel.visible);
        if (panel.active) current = page;
        else if (!panel.visible && current === page) current = sidebar;
      },
      end.signal,
    );
    listen(
      panel.onDidDispose,
      () => {
        setVisible(panel, page, false);
        end.abort();
        if (current === page) current = sidebar;
      },
      end.signal,
    );
  }

  /** Opens the sidebar, and sends it a message. */
  async function sendToSidebar(message: ToPage): Promise<void> {
    if (!sidebar) pendingCommands = [message];
    const existing = sidebar;
    await commands.executeCommand(`${VIEW}.focus`);
    existing?.post(message);
  }

  const say = (command: Command, name: string | null = null): ToPage => ({ say: "command", command, name });
  context.subscriptions.push(
    { dispose: () => life.abort() },
    window.registerWebviewViewProvider(
      VIEW,
      { resolveWebviewView: openSidebar },
      { webviewOptions: { retainContextWhenHidden: true } },
    ),
    window.registerWebviewPanelSerializer(TAB, {
      deserializeWebviewPanel: async (panel: WebviewPanel, state: unknown): Promise<void> => {
        const opened = asOpened(state);
        if (opened) fillTab(panel, opened);
        else panel.dispose();
      },
    }),
    /** Shows the sidebar, and in it the cache `name`. Without a name, it shows the only cache, if there is only one. */
    commands.registerCommand("residscope.inspect", (name?: unknown) =>
      sendToSidebar(say("inspect", typeof name === "string" ? name : null)),
    ),
    commands.registerCommand("residscope.open", () => sendToSidebar(say("enlarge"))),
    commands.registerCommand("residscope.nextHead", () => current?.post(say("next"))),
    commands.registerCommand("residscope.previousHead", () => current?.post(say("previous"))),
    commands.registerCommand("residscope.help", () =>
      current ? current.post(say("help")) : openChapter(assets, "vscode"),
    ),
    commands.registerCommand("residscope.refresh", () => sendToSidebar(say("refresh"))),
  );
  listen(workspace.onDidGrantWorkspaceTrust, () => hub.retry(), life.signal);
  listen(extensions.onDidChange, () => hub.retry(), life.signal);
}

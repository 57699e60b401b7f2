/** The two widgets in JupyterLab: the sidebar, and a view in the main area. */

import { MainAreaWidget } from "@jupyterlab/apputils";
import { PathExt } from "@jupyterlab/coreutils";
import type { Message } from "@lumino/messaging";
import { Widget } from "@lumino/widgets";
import {
  type Caches,
  type Inspection,
  mountView,
  type Opened,
  Sidebar,
  type SidebarHost,
  shown,
  signal,
} from "@residscope/widgets";

import { residscopeIcon } from "./icon";

/** The views need at least this width. */
const MIN_WIDTH = "330px";

export class SidebarWidget extends Widget {
  readonly sidebar: Sidebar;
  readonly #isVisible = signal(false);
  readonly #end = new AbortController();

  constructor(host: Omit<SidebarHost, "visible">) {
    super();
    this.id = "residscope-sidebar";
    this.addClass("rs-host");
    this.node.style.minWidth = MIN_WIDTH; // on the element, because the layout reads it before the styles are loaded
    this.title.icon = residscopeIcon;
    this.title.caption = "Residscope";
    this.node.setAttribute("role", "region");
    this.node.setAttribute("aria-label", "Residscope sidebar");
    this.sidebar = new Sidebar(this.node, { ...host, visible: this.#isVisible }, this.#end.signal);
  }

  override dispose(): void {
    this.#end.abort();
    super.dispose();
  }

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this.#isVisible.value = true;
  }

  protected override onAfterHide(message: Message): void {
    super.onAfterHide(message);
    this.#isVisible.value = false;
  }

  protected override onActivateRequest(message: Message): void {
    super.onActivateRequest(message);
    this.sidebar.focus();
  }
}

class View extends Widget {
  readonly inspection: Inspection;
  readonly #end = new AbortController();

  constructor(caches: Caches, opened: Opened) {
    super();
    this.addClass("rs-host");
    this.inspection = mountView(this.node, caches, opened, this.#end.signal);
  }

  override dispose(): void {
    this.#end.abort();
    super.dispose();
  }
}

export class ViewWidget extends MainAreaWidget<View> {
  /** `id` identifies the widget in JupyterLab's layout across reloads. */
  constructor(
    caches: Caches,
    public opened: Opened,
    id: string,
  ) {
    super({ content: new View(caches, opened) });
    this.id = id;
    this.title.label = shown(opened.name);
    this.moved(opened.path);
    this.title.icon = residscopeIcon;
    this.title.closable = true;
    this.toolbar.hide();
  }

  /** Sets the path of the notebook, which was renamed. */
  moved(path: string): void {
    this.opened = { ...this.opened, path };
    this.title.caption = `${shown(this.opened.name)} in ${shown(PathExt.basename(path))} · Residscope`;
  }

  /** The view with its present selection, to open it again. */
  get present(): Opened {
    return { ...this.opened, selection: this.content.inspection.selection.peek() };
  }
}

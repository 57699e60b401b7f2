/** Where caches may be: open notebooks and consoles, and sessions that run without being open here. By their paths. */

import type { JupyterFrontEnd } from "@jupyterlab/application";
import type { ISessionContext } from "@jupyterlab/apputils";
import type { IConsoleTracker } from "@jupyterlab/console";
import { PathExt } from "@jupyterlab/coreutils";
import type { INotebookTracker } from "@jupyterlab/notebook";
import type { Session } from "@jupyterlab/services";
import { Caches, type Place, type Places, signal as state } from "@residscope/widgets";
import type { Widget } from "@lumino/widgets";

import { KernelLink } from "./link";

const NO_KERNEL = "This notebook has no kernel. Start one, and its caches are listed here.";
const NOT_RUNNING = "No kernel runs here any more. Open the notebook again, and run its cells.";

interface Known {
  link: KernelLink;
  caches: Caches;
  /** A connection of our own, where no notebook is open. */
  own: Session.ISessionConnection | null;
}

export class JupyterPlaces implements Places {
  readonly focused = state<Place | null>(null);
  readonly running = state<Place[]>([]);
  readonly picked = state<string | null>(null);
  /** Whether the focus is followed; else the first that had it stays. */
  readonly follow = state(true);
  readonly #known = new Map<string, Known>();
  /** A notebook and its console stand at one path, and share a kernel. */
  readonly #open = new Map<string, Set<ISessionContext>>();

  constructor(
    readonly app: JupyterFrontEnd,
    trackers: (INotebookTracker | IConsoleTracker | null)[],
    /** Told when a notebook was renamed. */
    readonly moved: (from: string, to: string) => void,
    readonly signal: AbortSignal,
  ) {
    for (const tracker of trackers) {
      if (!tracker) continue;
      tracker.forEach((widget: Widget & { sessionContext: ISessionContext }) => this.#enter(widget.sessionContext));
      tracker.widgetAdded.connect((_, widget) => this.#enter(widget.sessionContext));
      tracker.currentChanged.connect((_, widget) => widget && this.#focus(widget.sessionContext));
      if (tracker.currentWidget) this.#focus(tracker.currentWidget.sessionContext);
    }
    // Of notebook and console the one that was looked at last; a text file or a view of ours changes nothing.
    const shell = app.shell;
    shell.currentChanged?.connect(() => {
      const current = trackers.map((tracker) => tracker?.currentWidget).find((widget) => widget && widget === shell.currentWidget);
      if (current) this.#focus(current.sessionContext);
    });
    const { sessions } = app.serviceManager;
    sessions.runningChanged.connect(() => this.#list());
    this.#list();
  }

  /** The caches of the kernel at a path; attached as long as this page lives. */
  caches(path: string): Caches {
    const known = this.#known.get(path);
    if (known) return known.caches;
    const link = new KernelLink(this.signal);
    const made: Known = { link, caches: new Caches(link, this.signal), own: null };
    this.#known.set(path, made);
    this.#connect(path);
    return made.caches;
  }

  /** Connects a path's link to the kernel that is there now. */
  #connect(path: string): void {
    const known = this.#known.get(path);
    if (!known) return;
    const contexts = [...(this.#open.get(path) ?? [])];
    const context = contexts.find((open) => open.session?.kernel) ?? contexts[0];
    if (context) {
      known.own?.dispose();
      known.own = null;
      known.link.use(context.session?.kernel ?? null, context.isReady ? NO_KERNEL : "");
      return;
    }
    if (known.own && !known.own.isDisposed) return;
    const model = [...this.app.serviceManager.sessions.running()].find((session) => session.path === path);
    if (!model) return known.link.use(null, NOT_RUNNING);
    // Without comms: a connection that handles them closes the widgets' comms that it does not know.
    const own = this.app.serviceManager.sessions.connectTo({ model, kernelConnectionOptions: { handleComms: false } });
    known.own = own;
    own.kernelChanged.connect(() => known.own === own && known.link.use(own.kernel, NOT_RUNNING));
    own.disposed.connect(() => known.own === own && this.#connect(path));
    known.link.use(own.kernel, NOT_RUNNING);
  }

  /** A notebook or console was opened. */
  #enter(context: ISessionContext): void {
    let path = context.path;
    if (this.#open.get(path)?.has(context)) return; // a second view of a notebook
    this.#add(path, context);
    const connect = (): void => this.#connect(path);
    context.kernelChanged.connect(connect);
    context.sessionChanged.connect(connect);
    void context.ready.then(connect);
    context.propertyChanged.connect((_, what) => {
      if (what !== "path" || context.path === path) return;
      const from = path;
      path = context.path;
      this.#remove(from, context);
      this.#add(path, context);
      const known = this.#known.get(from);
      if (known && !this.#open.has(from)) {
        this.#known.delete(from);
        this.#known.get(path)?.link.use(null, NOT_RUNNING);
        this.#known.set(path, known);
      }
      this.moved(from, path);
      if (this.picked.value === from) this.picked.value = path;
      if (this.focused.value?.path === from) this.focused.value = placeOf(context);
      this.#list();
    });
    context.disposed.connect(() => {
      this.#remove(path, context);
      this.#connect(path); // its kernel may run on
    });
    connect();
  }

  #add(path: string, context: ISessionContext): void {
    this.#open.set(path, (this.#open.get(path) ?? new Set()).add(context));
  }

  #remove(path: string, context: ISessionContext): void {
    const open = this.#open.get(path);
    open?.delete(context);
    if (open?.size === 0) this.#open.delete(path);
  }

  #focus(context: ISessionContext): void {
    const stays = this.focused.value && !this.follow.value && this.#open.has(this.focused.value.path);
    if (stays) return;
    this.focused.value = placeOf(context);
  }

  #list(): void {
    const models = [...this.app.serviceManager.sessions.running()];
    this.running.value = models.map(({ path, name, kernel }) => ({ path, label: `${name || PathExt.basename(path)} · ${kernel?.name ?? "no kernel"}` }));
    for (const [path, known] of this.#known) if (!known.own) this.#connect(path);
  }
}

const placeOf = ({ path }: ISessionContext): Place => ({ path, label: PathExt.basename(path) });

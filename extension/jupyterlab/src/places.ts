/** The places where caches may be: open notebooks and consoles, and other running sessions. Paths identify them. */

import type { JupyterFrontEnd } from "@jupyterlab/application";
import type { ISessionContext } from "@jupyterlab/apputils";
import type { IConsoleTracker } from "@jupyterlab/console";
import { PathExt } from "@jupyterlab/coreutils";
import type { INotebookTracker } from "@jupyterlab/notebook";
import type { Session } from "@jupyterlab/services";
import type { Widget } from "@lumino/widgets";
import { Caches, child, listen, type Place, type Places, signal as state } from "@residscope/widgets";

import { KernelLink } from "./link";

const NO_KERNEL = "This notebook has no kernel. Start one, and its caches are listed here.";
const NOT_RUNNING = "The kernel has ended. Open the notebook again and run its cells.";

/** The connection to the kernel at one path. */
interface Connection {
  end: AbortController;
  link: KernelLink;
  caches: Caches;
  /** A session that we have opened ourselves, if the notebook is not open; else null. */
  session: Session.ISessionConnection | null;
}

export class JupyterPlaces implements Places {
  readonly focused = state<Place | null>(null);
  readonly running = state<Place[]>([]);
  readonly picked = state<string | null>(null);
  /** Whether the sidebar follows the focus. If not, it stays with its notebook or console while that is open. */
  readonly follow = state(true);
  readonly #connections = new Map<string, Connection>();
  /** The open notebooks and consoles. A notebook and its console have the same path and the same kernel. */
  readonly #open = new Map<string, Set<ISessionContext>>();

  constructor(
    readonly app: JupyterFrontEnd,
    trackers: (INotebookTracker | IConsoleTracker | null)[],
    readonly listener: { moved: (from: string, to: string) => void; closed: (path: string) => void },
    readonly signal: AbortSignal,
  ) {
    for (const tracker of trackers) {
      if (!tracker) continue;
      tracker.forEach((widget: Widget & { sessionContext: ISessionContext }) => this.#enter(widget.sessionContext));
      // The two trackers have different types of widgets. Only their sessions are used here.
      const { widgetAdded, currentChanged } = tracker as INotebookTracker;
      listen(widgetAdded, (widget) => this.#enter(widget.sessionContext), signal);
      listen(currentChanged, (widget) => widget && this.#focus(widget.sessionContext), signal);
      if (tracker.currentWidget) this.#focus(tracker.currentWidget.sessionContext);
    }
    // Follows the last notebook or console that had the focus. Text files and our own views do not count.
    const shell = app.shell;
    if (shell.currentChanged) {
      listen(
        shell.currentChanged,
        () => {
          const current = trackers
            .map((tracker) => tracker?.currentWidget)
            .find((widget) => widget && widget === shell.currentWidget);
          if (current) this.#focus(current.sessionContext);
        },
        signal,
      );
    }
    listen(app.serviceManager.sessions.runningChanged, () => this.#list(), signal);
    this.#list();
  }

  isOpen(path: string): boolean {
    return this.#open.has(path);
  }

  /** Detaches from the kernel at a path. A later call of `caches` attaches again. */
  forget(path: string): void {
    const connection = this.#connections.get(path);
    this.#connections.delete(path);
    connection?.end.abort();
    connection?.session?.dispose();
  }

  /** The caches of the kernel at a path. The first call attaches to the kernel, and `forget` detaches. */
  caches(path: string): Caches {
    const existing = this.#connections.get(path);
    if (existing) return existing.caches;
    const end = child(this.signal);
    const link = new KernelLink(end.signal);
    const connection: Connection = { end, link, caches: new Caches(link, end.signal), session: null };
    this.#connections.set(path, connection);
    this.#connect(path);
    return connection.caches;
  }

  /** Connects the link of a path to the kernel that the path has now. */
  #connect(path: string): void {
    const connection = this.#connections.get(path);
    if (!connection) return;
    const contexts = [...(this.#open.get(path) ?? [])];
    const context = contexts.find((open) => open.session?.kernel) ?? contexts[0];
    if (context) {
      connection.session?.dispose();
      connection.session = null;
      connection.link.use(context.session?.kernel ?? null, context.isReady ? NO_KERNEL : "");
      return;
    }
    if (connection.session && !connection.session.isDisposed) return;
    const model = [...this.app.serviceManager.sessions.running()].find((running) => running.path === path);
    if (!model) return connection.link.use(null, NOT_RUNNING);
    // This connection handles no comms. Otherwise it would close the comms of widgets that it did not create.
    const { sessions } = this.app.serviceManager;
    const session = sessions.connectTo({ model, kernelConnectionOptions: { handleComms: false } });
    connection.session = session;
    const end = child(connection.end.signal);
    listen(
      session.kernelChanged,
      () => connection.session === session && connection.link.use(session.kernel, NOT_RUNNING),
      end.signal,
    );
    listen(
      session.disposed,
      () => {
        end.abort();
        if (connection.session === session) this.#connect(path);
      },
      end.signal,
    );
    connection.link.use(session.kernel, NOT_RUNNING);
  }

  /** Called when a notebook or console was opened. */
  #enter(context: ISessionContext): void {
    let path = context.path;
    if (this.#open.get(path)?.has(context)) return; // a second widget for the same notebook
    this.#add(path, context);
    const end = child(this.signal);
    const { signal } = end;
    const connect = (): void => this.#connect(path);
    listen(context.kernelChanged, connect, signal);
    listen(context.sessionChanged, connect, signal);
    void context.ready.then(connect);
    listen(
      context.propertyChanged,
      (property) => {
        if (property !== "path" || context.path === path) return;
        const from = path;
        path = context.path;
        this.#remove(from, context);
        this.#add(path, context);
        const connection = this.#connections.get(from);
        if (connection && !this.#open.has(from)) {
          this.#connections.delete(from);
          this.forget(path);
          this.#connections.set(path, connection);
        }
        this.listener.moved(from, path);
        if (this.picked.value === from) this.picked.value = path;
        if (this.focused.value?.path === from) this.focused.value = placeOf(context);
        this.#list();
      },
      signal,
    );
    listen(
      context.disposed,
      () => {
        end.abort();
        this.#remove(path, context);
        this.#connect(path); // the kernel may continue to run
        this.listener.closed(path);
      },
      signal,
    );
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
    const isFixed = this.focused.value && !this.follow.value && this.#open.has(this.focused.value.path);
    if (isFixed) return;
    this.focused.value = placeOf(context);
  }

  #list(): void {
    const models = [...this.app.serviceManager.sessions.running()];
    this.running.value = models.map(({ path, name, kernel }) => ({
      path,
      label: `${name || PathExt.basename(path)} · ${kernel?.name ?? "no kernel"}`,
    }));
    for (const [path, connection] of this.#connections) if (!connection.session) this.#connect(path);
  }
}

const placeOf = ({ path }: ISessionContext): Place => ({ path, label: PathExt.basename(path) });

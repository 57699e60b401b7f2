/**
 * A panel in a notebook's output: live while the kernel knows it, else its last picture. That is put into the notebook
 * whenever it is saved.
 */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from "@jupyterlab/application";
import { INotebookTracker, type NotebookPanel } from "@jupyterlab/notebook";
import { Panel, Widget } from "@lumino/widgets";
import { asSnapshot, child, mountSnapshot, signal as state, type Snapshot, SNAPSHOT_EVENT, type SnapshotRequest, summaryOf, type Words } from "@residscope/widgets";

import { listen } from "./listen";

const MIME = "application/vnd.residscope.panel+json";
const WIDGET_VIEW = "application/vnd.jupyter.widget-view+json";
/** Before ipywidgets' own, which has −10. */
const RANK = -11;

type RenderMime = NotebookPanel["content"]["rendermime"];
type Renderer = ReturnType<RenderMime["createRenderer"]>;
type Output = Parameters<Renderer["renderModel"]>[0];
type Context = NotebookPanel["sessionContext"];

export const savedPlugin: JupyterFrontEndPlugin<void> = {
  id: "@residscope/jupyterlab:saved",
  description: "Keeps the last picture of each panel in its notebook, and shows it when the notebook is opened without its kernel.",
  autoStart: true,
  requires: [INotebookTracker],
  activate: (_app: JupyterFrontEnd, notebooks: INotebookTracker) => {
    const enter = ({ content: { rendermime }, sessionContext, context }: NotebookPanel): void => {
      const outputs = new Set<PanelOutput>();
      const createRenderer = (): PanelOutput => {
        const output = new PanelOutput(rendermime, sessionContext);
        outputs.add(output);
        output.disposed.connect(() => outputs.delete(output));
        return output;
      };
      rendermime.addFactory({ safe: true, mimeTypes: [MIME], createRenderer }, RANK);
      context.saveState.connect((_, step) => {
        if (step === "started") for (const output of outputs) output.keep();
      });
    };
    notebooks.forEach(enter);
    notebooks.widgetAdded.connect((_, notebook) => enter(notebook));
  },
};

/** One output. In a notebook that is not trusted it only ever shows the picture: plain data, whose text stays text. */
class PanelOutput extends Panel implements Renderer {
  readonly #end = new AbortController();
  #output: Output | null = null;
  #id: string | null = null;
  #live = false;
  #kept = "";
  #saved: { widget: Widget; end: AbortController; words: { value: Words | null } } | null = null;

  constructor(
    readonly rendermime: RenderMime,
    readonly context: Context,
  ) {
    super();
    this.addClass("rs-output");
    listen(context.kernelChanged, () => void this.#enliven(), this.#end.signal);
  }

  override dispose(): void {
    this.#end.abort();
    super.dispose();
  }

  async renderModel(output: Output): Promise<void> {
    this.#output = output;
    const { model_id: id, snapshot } = (output.data[MIME] ?? {}) as { model_id?: unknown; snapshot?: unknown };
    // Its picture was put into the notebook: what is on screen stays. Or the notebook has just been trusted.
    if (id === this.#id && (this.#live || this.#saved)) return void this.#enliven();
    this.#clear();
    this.#id = typeof id === "string" ? id : null;
    const picture = asSnapshot(snapshot);
    if (picture) {
      this.#show(picture);
      return void this.#enliven();
    }
    this.#live = true;
    // A cell that has just run finds its kernel there, and no time is lost. ipywidgets needs to have met it, too.
    if (!this.context.isReady) await met(this.context);
    if (!this.isDisposed) await this.#host(output);
  }

  /** The cell has been run again into this very output. */
  #clear(): void {
    this.#saved?.end.abort();
    this.#saved = null;
    this.#live = false;
    for (const widget of [...this.widgets]) widget.dispose();
  }

  /** Puts what is on screen into the notebook, where that is another picture than it holds. */
  keep(): void {
    const output = this.#output;
    const root = this.#live ? this.node.querySelector(".residscope") : null;
    let picture: Snapshot | null = null;
    const detail: SnapshotRequest = { put: (snapshot) => (picture = snapshot) };
    root?.dispatchEvent(new CustomEvent(SNAPSHOT_EVENT, { detail }));
    const snapshot = picture as Snapshot | null;
    if (!output || !snapshot) return;
    const content = JSON.stringify({ ...snapshot, saved: "" });
    if (content === this.#kept) return;
    this.#kept = content;
    const kept = JSON.parse(JSON.stringify({ model_id: this.#id, snapshot }));
    output.setData({ data: { ...output.data, "text/html": summaryOf(snapshot), [MIME]: kept } });
  }

  /** What JupyterLab shows of a widget, or of a text where there are no widgets. */
  async #host(output: Output, arriving = false): Promise<Renderer> {
    const type = this.rendermime.getFactory(WIDGET_VIEW) ? WIDGET_VIEW : "text/plain";
    const renderer = this.rendermime.createRenderer(type);
    if (arriving) renderer.addClass("rs-arriving");
    this.addWidget(renderer);
    await renderer.renderModel(output);
    return renderer;
  }

  #show(picture: Snapshot): void {
    const end = child(this.#end.signal);
    const widget = new Widget();
    const words = state<Words | null>(this.#output?.trusted ? null : wordsOf(picture)); // not yet known to be dead
    mountSnapshot(widget.node, picture, words, end.signal);
    this.addWidget(widget);
    this.#saved = { widget, end, words };
    this.#kept = JSON.stringify({ ...picture, saved: "" });
  }

  /** Puts the live panel in the place of its picture, if the kernel still knows it, and once it is drawn. */
  async #enliven(): Promise<void> {
    const [output, saved, id] = [this.#output, this.#saved, this.#id];
    if (!output?.trusted || !saved || !id || this.#live) return;
    const known = await knows(this.context, id);
    if (this.isDisposed || this.#live || this.#saved !== saved) return;
    if (!known) {
      const picture = asSnapshot((output.data[MIME] as { snapshot?: unknown } | undefined)?.snapshot);
      if (picture) saved.words.value = wordsOf(picture);
      return;
    }
    this.#live = true;
    const renderer = await this.#host(output, true);
    await drawn(renderer.node, this.#end.signal);
    if (this.#saved !== saved) return;
    renderer.removeClass("rs-arriving");
    saved.end.abort();
    saved.widget.dispose();
    this.#saved = null;
  }
}

function wordsOf({ saved }: Snapshot): Words {
  const date = new Date(saved).toLocaleDateString(undefined, { dateStyle: "long" });
  return {
    quiet: `Saved picture of ${date}; run the cell again to ask more.`,
    refusal: (what) => `This picture was saved without ${what}; run the cell again to ask for it.`,
  };
}

/** Once the notebook has its kernel, and everybody who waits for that has had a turn. */
async function met(context: Context): Promise<void> {
  await context.ready;
  await new Promise((resolve) => setTimeout(resolve));
}

/** Whether the notebook's kernel knows a widget of this name. */
async function knows(context: Context, id: string): Promise<boolean> {
  try {
    await met(context);
    const { content } = (await context.session?.kernel?.requestCommInfo({ target_name: "jupyter.widget" })) ?? { content: null };
    return content?.status === "ok" && id in content.comms;
  } catch {
    return false; // the kernel went meanwhile
  }
}

/** Once there is a panel with its figures in this element. */
function drawn(node: HTMLElement, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const look = (): void => {
      if (node.querySelector(".residscope:is([data-state=ready], [data-state=error])")) done();
    };
    const observer = new MutationObserver(look);
    const done = (): void => {
      observer.disconnect();
      resolve();
    };
    observer.observe(node, { subtree: true, childList: true, attributes: true, attributeFilter: ["data-state"] });
    signal.addEventListener("abort", done, { once: true });
    look();
  });
}

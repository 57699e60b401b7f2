/**
 * A panel in a notebook's output: live while the kernel knows it, else its last picture. The picture is stored whenever
 * the notebook is saved.
 *
 * The renderer is also called for untrusted outputs. For them it draws only a picture whose data was checked, or a
 * sentence: no part of the output becomes a live widget, HTML, a link or code.
 */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from "@jupyterlab/application";
import { INotebookTracker, type NotebookPanel } from "@jupyterlab/notebook";
import { Panel, Widget } from "@lumino/widgets";
import {
  type Checked,
  checkSnapshot,
  child,
  listen,
  mountSnapshot,
  SNAPSHOT_EVENT,
  type Snapshot,
  type SnapshotRequest,
  summaryOf,
  wordsOf,
} from "@residscope/widgets";

const MIME = "application/vnd.residscope.panel+json";
const WIDGET_VIEW = "application/vnd.jupyter.widget-view+json";
/** Comes before ipywidgets' renderer, which has −10. */
const RANK = -11;

type RenderMime = NotebookPanel["content"]["rendermime"];
type Renderer = ReturnType<RenderMime["createRenderer"]>;
type Output = Parameters<Renderer["renderModel"]>[0];
type Context = NotebookPanel["sessionContext"];

export const savedPlugin: JupyterFrontEndPlugin<void> = {
  id: "@residscope/jupyterlab:saved",
  description:
    "Keeps the last picture of each panel in its notebook, and shows it when the notebook is opened without its kernel.",
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

/** What an output shows: its live panel, or the last picture or a sentence in its place. */
type Showing = { as: "live" } | Still;
interface Still {
  as: "still";
  /** The content of the picture; empty for a sentence. */
  content: string;
  widget: Widget;
  end: AbortController;
}

class PanelOutput extends Panel implements Renderer {
  readonly #end = new AbortController();
  #output: Output | null = null;
  #id: string | null = null;
  #showing: Showing | null = null;
  /** The content of the picture that the notebook has. */
  #kept = "";

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
    const showing = this.#showing;
    const { id, snapshot } = heldBy(output);
    if (id === this.#id && output.trusted && showing?.as === "live") return; // only its picture has changed, which we stored
    const checked = snapshot === null ? null : checkSnapshot(snapshot);
    const content = checked?.snapshot ? contentOf(checked.snapshot) : "";
    if (id === this.#id && showing?.as === "still" && content !== "" && showing.content === content)
      return void this.#enliven(); // the notebook has just become trusted
    this.#clear();
    this.#id = id;
    if (checked || !output.trusted) {
      if (checked?.snapshot) this.#show(checked.snapshot);
      else this.#say(sentenceFor(checked, output.trusted));
      return void this.#enliven();
    }
    this.#showing = { as: "live" };
    // For a cell that has just run, the kernel is ready and nothing is awaited. Otherwise ipywidgets must be ready, too.
    if (!this.context.isReady) await kernelReady(this.context);
    if (!this.isDisposed && this.#output === output && output.trusted) await this.#host(output);
  }

  /** Removes the contents, because the cell was run again into this output, or the output has changed. */
  #clear(): void {
    if (this.#showing?.as === "still") this.#showing.end.abort();
    this.#showing = null;
    this.node.style.paddingTop = "";
    for (const widget of [...this.widgets]) widget.dispose();
  }

  /** Stores the picture on screen in the notebook, if it has changed. */
  keep(): void {
    const output = this.#output;
    const root = this.#showing?.as === "live" ? this.node.querySelector(".residscope") : null;
    let picture: Snapshot | null = null;
    const detail: SnapshotRequest = { put: (snapshot) => (picture = snapshot) };
    root?.dispatchEvent(new CustomEvent(SNAPSHOT_EVENT, { detail }));
    const snapshot = picture as Snapshot | null;
    if (!output || !snapshot) return;
    const content = contentOf(snapshot);
    if (content === this.#kept) return;
    this.#kept = content;
    const kept = JSON.parse(JSON.stringify({ model_id: this.#id, snapshot }));
    output.setData({ data: { ...output.data, "text/html": summaryOf(snapshot), [MIME]: kept } });
  }

  /** Adds JupyterLab's own renderer for the widget, or for text if there are no widgets. Only for trusted outputs. */
  async #host(output: Output, arriving = false): Promise<Renderer> {
    const type = this.rendermime.getFactory(WIDGET_VIEW) ? WIDGET_VIEW : "text/plain";
    const renderer = this.rendermime.createRenderer(type);
    if (arriving) renderer.addClass("rs-arriving");
    this.addWidget(renderer);
    await renderer.renderModel(output);
    return renderer;
  }

  #show(picture: Snapshot): void {
    const { widget, end } = this.#still(contentOf(picture));
    mountSnapshot(widget.node, picture, wordsOf(picture), end.signal);
    this.#kept = contentOf(picture);
  }

  #say(sentence: string): void {
    const { widget } = this.#still("");
    widget.addClass("rs-output-words");
    widget.node.textContent = sentence;
  }

  #still(content: string): Still {
    const still: Still = { as: "still", content, widget: new Widget(), end: child(this.#end.signal) };
    this.addWidget(still.widget);
    this.#showing = still;
    return still;
  }

  /** Replaces the picture by the live panel once that is drawn, if the output is trusted and the kernel knows the panel. */
  async #enliven(): Promise<void> {
    const [output, showing, id] = [this.#output, this.#showing, this.#id];
    if (!output?.trusted || showing?.as !== "still" || !id) return;
    const known = await knows(this.context, id);
    if (!known || this.isDisposed || this.#showing !== showing || this.#output !== output || !output.trusted) return;
    this.#showing = { as: "live" };
    const live = this.#showing;
    this.node.style.paddingTop = `${lineAbove(showing.widget.node)}px`; // in place of the picture's line, so that nothing moves
    const renderer = await this.#host(output, true);
    await drawn(renderer.node, this.#end.signal);
    showing.end.abort();
    showing.widget.dispose();
    if (this.#showing === live) renderer.removeClass("rs-arriving");
  }
}

/** The output's data for us; `snapshot` is not checked yet. */
function heldBy(output: Output): { id: string | null; snapshot: unknown } {
  const held: unknown = output.data[MIME];
  const { model_id: id, snapshot } = (typeof held === "object" && held !== null ? held : {}) as {
    model_id?: unknown;
    snapshot?: unknown;
  };
  return { id: typeof id === "string" ? id : null, snapshot: snapshot ?? null };
}

/** The height in CSS pixels of a picture's line above its panel. */
function lineAbove(picture: HTMLElement): number {
  const panel = picture.querySelector(".residscope .rs-box");
  return panel ? panel.getBoundingClientRect().top - picture.getBoundingClientRect().top : 0;
}

/** A picture's content without its date, to compare pictures. */
function contentOf(snapshot: Snapshot): string {
  return JSON.stringify({ ...snapshot, saved: "" });
}

function sentenceFor(checked: Checked | null, trusted: boolean): string {
  const why = checked?.trouble ? `Its saved picture is not drawn: ${checked.trouble}.` : "No picture of it was saved.";
  return `A Residscope panel. ${why} Run its cell to create it again.${trusted ? "" : " Live panels are not shown in a notebook that is not trusted."}`;
}

/** Settles when the notebook has its kernel, and all others who wait for it (ipywidgets) have run. */
async function kernelReady(context: Context): Promise<void> {
  await context.ready;
  await new Promise((resolve) => setTimeout(resolve));
}

/** Whether the notebook's kernel knows a widget of this name. */
async function knows(context: Context, id: string): Promise<boolean> {
  try {
    await kernelReady(context);
    const { content } = (await context.session?.kernel?.requestCommInfo({ target_name: "jupyter.widget" })) ?? {
      content: null,
    };
    return content?.status === "ok" && Object.hasOwn(content.comms, id);
  } catch {
    return false; // the kernel has ended meanwhile
  }
}

/** Settles when a panel is drawn in this element. */
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

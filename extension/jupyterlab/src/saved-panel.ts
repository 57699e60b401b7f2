/**
 * Renders a panel in a notebook's output. If the kernel has the panel's widget model, the panel is live; otherwise the
 * output shows its last picture. The picture is stored whenever the notebook is saved.
 *
 * JupyterLab calls this renderer for untrusted outputs, too. For them it draws only a picture whose data was checked,
 * or a sentence. No part of an untrusted output becomes a live widget, HTML, a link or code.
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
/** The renderer with the lowest rank is used; ipywidgets' renderer has −10. */
const RANK = -11;

type RenderMime = NotebookPanel["content"]["rendermime"];
type Renderer = ReturnType<RenderMime["createRenderer"]>;
type Output = Parameters<Renderer["renderModel"]>[0];
type Context = NotebookPanel["sessionContext"];

export const savedPlugin: JupyterFrontEndPlugin<void> = {
  id: "@residscope/jupyterlab:saved",
  description:
    "Keeps the last picture of each panel in its notebook, " +
    "and shows it when the notebook is opened without its kernel.",
  autoStart: true,
  requires: [INotebookTracker],
  activate: (_app: JupyterFrontEnd, notebooks: INotebookTracker) => {
    const addRenderer = ({ content: { rendermime }, sessionContext, context }: NotebookPanel): void => {
      const outputs = new Set<PanelOutput>();
      const createRenderer = (): PanelOutput => {
        const output = new PanelOutput(rendermime, sessionContext);
        outputs.add(output);
        output.disposed.connect(() => outputs.delete(output));
        return output;
      };
      rendermime.addFactory({ safe: true, mimeTypes: [MIME], createRenderer }, RANK);
      context.saveState.connect((_, step) => {
        if (step === "started") for (const output of outputs) output.storePicture();
      });
    };
    notebooks.forEach(addRenderer);
    notebooks.widgetAdded.connect((_, notebook) => addRenderer(notebook));
  },
};

/** The contents of an output: the live panel, or a replacement (the last picture, or a sentence). */
type Contents = { as: "live" } | Replacement;
interface Replacement {
  as: "replacement";
  /** The content of the picture, to compare pictures; empty for a sentence. */
  content: string;
  widget: Widget;
  end: AbortController;
}

class PanelOutput extends Panel implements Renderer {
  readonly #end = new AbortController();
  #output: Output | null = null;
  #id: string | null = null;
  #contents: Contents | null = null;
  /** Aborts when the live panel that replaces a picture is drawn, or the output has other contents. */
  #arriving: AbortController | null = null;
  /** The content of the picture in the notebook, to compare pictures. */
  #storedContent = "";

  constructor(
    readonly rendermime: RenderMime,
    readonly context: Context,
  ) {
    super();
    this.addClass("rs-output");
    listen(context.kernelChanged, () => void this.#showLive(), this.#end.signal);
  }

  override dispose(): void {
    this.#end.abort();
    super.dispose();
  }

  async renderModel(output: Output): Promise<void> {
    this.#output = output;
    const contents = this.#contents;
    const { id, snapshot } = dataIn(output);
    // In this case only the stored picture has changed: this renderer has just stored it.
    if (id === this.#id && output.trusted && contents?.as === "live") return;
    const checked = snapshot === null ? null : checkSnapshot(snapshot);
    const content = checked?.snapshot ? contentOf(checked.snapshot) : "";
    if (id === this.#id && contents?.as === "replacement" && content !== "" && contents.content === content)
      return void this.#showLive(); // the notebook has just become trusted
    this.#clear();
    this.#id = id;
    if (checked || !output.trusted) {
      if (checked?.snapshot) this.#showPicture(checked.snapshot);
      else this.#showSentence(sentenceFor(checked, output.trusted));
      return void this.#showLive();
    }
    const live: Contents = { as: "live" };
    this.#contents = live;
    // If the cell has just run, the kernel and ipywidgets are ready, and there is nothing to wait for.
    if (!this.context.isReady) await kernelReady(this.context);
    if (this.isDisposed || this.#output !== output || !output.trusted) return;
    try {
      await this.#addWidget(output);
    } catch (error) {
      if (this.#contents === live) this.#contents = null; // so that a later output of this panel is drawn
      throw error; // JupyterLab shows it
    }
  }

  /** Removes the contents, because the cell was run again or the output has changed. */
  #clear(): void {
    if (this.#contents?.as === "replacement") this.#contents.end.abort();
    this.#arriving?.abort();
    this.#contents = null;
    this.#storedContent = ""; // if the new output has a picture, `#showPicture` sets it
    this.node.style.paddingTop = "";
    for (const widget of [...this.widgets]) widget.dispose();
  }

  /** Stores the picture on screen in the notebook, if it has changed. */
  storePicture(): void {
    const output = this.#output;
    const root = this.#contents?.as === "live" ? this.node.querySelector(".residscope") : null;
    let picture: Snapshot | null = null;
    const detail: SnapshotRequest = { put: (snapshot) => (picture = snapshot) };
    root?.dispatchEvent(new CustomEvent(SNAPSHOT_EVENT, { detail }));
    const snapshot = picture as Snapshot | null;
    if (!output || !snapshot) return;
    const content = contentOf(snapshot);
    if (content === this.#storedContent) return;
    this.#storedContent = content;
    const stored = JSON.parse(JSON.stringify({ model_id: this.#id, snapshot }));
    output.setData({ data: { ...output.data, "text/html": summaryOf(snapshot), [MIME]: stored } });
  }

  /** Adds JupyterLab's renderer for widgets or, if there is none, its renderer for text. Only for trusted outputs. */
  async #addWidget(output: Output, isHidden = false): Promise<Renderer> {
    const type = this.rendermime.getFactory(WIDGET_VIEW) ? WIDGET_VIEW : "text/plain";
    const renderer = this.rendermime.createRenderer(type);
    if (isHidden) renderer.addClass("rs-arriving");
    this.addWidget(renderer);
    try {
      await renderer.renderModel(output);
    } catch (error) {
      renderer.dispose();
      throw error;
    }
    return renderer;
  }

  #showPicture(picture: Snapshot): void {
    const { widget, end } = this.#addReplacement(contentOf(picture));
    mountSnapshot(widget.node, picture, wordsOf(picture), end.signal);
    this.#storedContent = contentOf(picture);
  }

  #showSentence(sentence: string): void {
    const { widget } = this.#addReplacement("");
    widget.addClass("rs-output-words");
    widget.node.textContent = sentence;
  }

  #addReplacement(content: string): Replacement {
    const replacement: Replacement = { as: "replacement", content, widget: new Widget(), end: child(this.#end.signal) };
    this.addWidget(replacement.widget);
    this.#contents = replacement;
    return replacement;
  }

  /**
   * Replaces the picture by the live panel, if the output is trusted and the kernel has the panel's widget model. If
   * the panel cannot be drawn, the picture stays.
   */
  async #showLive(): Promise<void> {
    const [output, contents, id] = [this.#output, this.#contents, this.#id];
    if (!output?.trusted || contents?.as !== "replacement" || !id) return;
    const hasModel = await kernelHas(this.context, id);
    if (!hasModel || this.isDisposed || this.#contents !== contents || this.#output !== output || !output.trusted)
      return;
    const live: Contents = { as: "live" };
    this.#contents = live;
    // The padding is as high as the line above the picture, so that nothing moves.
    this.node.style.paddingTop = `${heightAbovePanel(contents.widget.node)}px`;
    const arriving = (this.#arriving = child(this.#end.signal));
    let renderer: Renderer;
    try {
      renderer = await this.#addWidget(output, true);
    } catch (error) {
      console.error(error);
      arriving.abort();
      if (this.#contents !== live) return contents.end.abort(); // the output has other contents by now
      this.#contents = contents; // a later change of the kernel tries again
      this.node.style.paddingTop = "";
      return;
    }
    await drawn(renderer.node, arriving.signal);
    arriving.abort();
    contents.end.abort();
    contents.widget.dispose();
    if (this.#contents === live) renderer.removeClass("rs-arriving");
  }
}

/** The id of the panel's widget model, and the saved snapshot, which is not checked yet. */
function dataIn(output: Output): { id: string | null; snapshot: unknown } {
  const data: unknown = output.data[MIME];
  const { model_id: id, snapshot } = (typeof data === "object" && data !== null ? data : {}) as {
    model_id?: unknown;
    snapshot?: unknown;
  };
  return { id: typeof id === "string" ? id : null, snapshot: snapshot ?? null };
}

/** The height in CSS pixels of the line above the panel in a saved picture. */
function heightAbovePanel(picture: HTMLElement): number {
  const panel = picture.querySelector(".residscope .rs-box");
  return panel ? panel.getBoundingClientRect().top - picture.getBoundingClientRect().top : 0;
}

/** A picture's content without its date, to compare pictures. */
function contentOf(snapshot: Snapshot): string {
  return JSON.stringify({ ...snapshot, saved: "" });
}

function sentenceFor(checked: Checked | null, trusted: boolean): string {
  const why = checked?.trouble ? `Its saved picture is not drawn: ${checked.trouble}.` : "No picture of it was saved.";
  const limit = trusted ? "" : " Live panels are not shown in a notebook that is not trusted.";
  return `A Residscope panel. ${why} Run its cell to create it again.${limit}`;
}

/** Waits until the notebook has its kernel. ipywidgets waits for this too, and has handled it before this ends. */
async function kernelReady(context: Context): Promise<void> {
  await context.ready;
  await new Promise((resolve) => setTimeout(resolve));
}

/** Whether the notebook's kernel has a widget model with this id. */
async function kernelHas(context: Context, id: string): Promise<boolean> {
  try {
    await kernelReady(context);
    const { content } = (await context.session?.kernel?.requestCommInfo({ target_name: "jupyter.widget" })) ?? {
      content: null,
    };
    return content?.status === "ok" && Object.hasOwn(content.comms, id);
  } catch {
    return false; // the kernel has ended during the request
  }
}

/** Waits until this element has a panel that is drawn or shows an error, or until `signal` aborts. */
function drawn(node: HTMLElement, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const check = (): void => {
      if (signal.aborted || node.querySelector(".residscope:is([data-state=ready], [data-state=error])")) done();
    };
    const observer = new MutationObserver(check);
    const done = (): void => {
      observer.disconnect();
      resolve();
    };
    observer.observe(node, { subtree: true, childList: true, attributes: true, attributeFilter: ["data-state"] });
    signal.addEventListener("abort", done, { once: true });
    check();
  });
}

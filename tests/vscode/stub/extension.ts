// Stands in for the Jupyter extension, which test machines cannot install, with a real ipykernel. It has the same id,
// kernel API, order of events and rules. Other extensions get a kernel only after a cell has ended. The user is asked
// in a modal dialog. Cells run before the requests of extensions, and the toolbar shows these requests. The stand-in
// has no kernel picker, no servers and no widgets.
import { join } from "node:path";
import type { Jupyter, Kernel, Output } from "@vscode/jupyter-extension";
import {
  commands,
  type ExtensionContext,
  type NotebookCell,
  type NotebookCellExecution,
  NotebookCellOutput,
  NotebookCellOutputItem,
  type NotebookController,
  type NotebookDocument,
  notebooks,
  type Uri,
  window,
  workspace,
} from "vscode";
import { Access } from "./access";
import { outputOf, RunningKernel } from "./kernel";

/** VS Code's proposed API "notebookExecution" runs code for a notebook outside its cells. The toolbar shows this. */
interface WithExecutions extends NotebookController {
  createNotebookExecution(notebook: NotebookDocument): { start(): void; end(): void };
}
/** The time from the idle status of a kernel until VS Code is told that the cell has ended. */
const END_MS = 30;

export function activate(context: ExtensionContext): Jupyter {
  const python = process.env["STAND_IN_PYTHON"] ?? "python3";
  const kernels = new Map<string, RunningKernel>();
  const shown = new WeakMap<RunningKernel, Kernel>();
  const access = new Access();
  let order = 0;
  // Tests wait for this text, and not for the icons of cells, because VS Code once showed two icons at a time.
  const bar = window.createStatusBarItem("runs");
  const runs = { running: 0, succeeded: 0, failed: 0, requests: 0 };
  const say = (): void => {
    const counts = Object.entries(runs).map(([what, many]) => `${String(many)} ${what}`);
    bar.text = `Stand-in: ${counts.join(", ")}`;
  };

  function kernelOf(notebook: NotebookDocument): RunningKernel {
    const key = notebook.uri.toString();
    const known = kernels.get(key);
    // A dead kernel is replaced. A kernel that restarts is dead for a moment, but the tests run no cell then.
    if (known && known.status !== "dead") return known;
    const { kernelspec } = (notebook.metadata["metadata"] ?? {}) as { kernelspec?: { name?: string } };
    const made = new RunningKernel(python, join(context.extensionPath, "bridge.py"), kernelspec?.name ?? "tests");
    kernels.set(key, made);
    return made;
  }

  const controller = notebooks.createNotebookController(
    "stand-in",
    "jupyter-notebook",
    "Stand-in Python",
  ) as WithExecutions;
  controller.supportsExecutionOrder = true;
  controller.supportedLanguages = ["python"];
  controller.interruptHandler = (notebook) => kernelOf(notebook).interrupt();
  controller.executeHandler = (cells, notebook) => {
    const kernel = kernelOf(notebook);
    runs.running += cells.length;
    say();
    for (const cell of cells) {
      const execution = controller.createNotebookCellExecution(cell);
      void kernel.enqueue(true, () => runCell(kernel, cell, execution)).then((ran) => {
        if (!ran) {
          execution.start();
          execution.end(undefined);
        }
        runs.running -= 1;
        say();
      });
    }
  };

  async function runCell(kernel: RunningKernel, cell: NotebookCell, execution: NotebookCellExecution): Promise<void> {
    execution.start(Date.now());
    await execution.clearOutput();
    const reply = await kernel.execute(cell.document.getText(), { silent: false, store_history: true }, (message) => {
      if (message.type === "execute_input") execution.executionOrder = ++order;
      const output = outputOf(message);
      if (!output) return;
      const items = output.items.map(({ mime, data }) => new NotebookCellOutputItem(data, mime));
      void execution.appendOutput(new NotebookCellOutput(items));
    });
    await new Promise((resolve) => setTimeout(resolve, END_MS));
    const succeeded = reply ? reply.content["status"] === "ok" : undefined; // undefined if the kernel was lost
    if (succeeded !== undefined) runs[succeeded ? "succeeded" : "failed"] += 1;
    kernel.used ||= reply !== null;
    execution.end(succeeded, Date.now());
  }

  async function* executeCode(kernel: RunningKernel, notebook: NotebookDocument, code: string): AsyncGenerator<Output> {
    const found: Output[] = [];
    let wake: () => void = () => undefined;
    let ended = false;
    let trouble: unknown = null;
    void kernel.enqueue(false, async () => {
      try {
        await access.check(kernel);
        runs.requests += 1;
        say();
        const execution = controller.createNotebookExecution(notebook);
        execution.start();
        await kernel.execute(code, { silent: false, store_history: false }, (message) => {
          const output = outputOf(message);
          if (output) found.push(output);
          wake();
        }).finally(() => execution.end());
      } catch (error) {
        trouble = error;
      }
    }).then(() => {
      ended = true;
      wake();
    });
    while (true) {
      while (found.length > 0) yield found.shift() as Output;
      if (trouble) throw trouble;
      if (ended) return;
      await new Promise<void>((resolve) => (wake = resolve));
    }
  }

  function apiOf(kernel: RunningKernel, notebook: NotebookDocument): Kernel {
    const known = shown.get(kernel);
    if (known) return known;
    const made: Kernel = {
      language: "python",
      get status() {
        return kernel.status;
      },
      onDidChangeStatus: kernel.statusChanged.event,
      executeCode: (code) => executeCode(kernel, notebook, code),
    };
    shown.set(kernel, made);
    return made;
  }

  const end = (key: string): void => {
    const kernel = kernels.get(key);
    kernels.delete(key);
    kernel?.dispose();
  };
  const inFocus = (): string => window.activeNotebookEditor?.notebook.uri.toString() ?? "";
  const focused = (): RunningKernel | undefined => kernels.get(inFocus());
  const command = (name: string, act: () => unknown): void => {
    context.subscriptions.push(commands.registerCommand(name, act));
  };
  command("stand-in.restart", () => focused()?.restart());
  command("stand-in.interrupt", () => focused()?.interrupt());
  command("stand-in.kill", () => focused()?.kill());
  command("stand-in.another", () => end(inFocus()));
  command("stand-in.allow", () => access.set(true));
  command("stand-in.revoke", () => access.set(false));
  command("jupyter.manageAccessToKernels", () => access.manage());
  say();
  bar.show();
  context.subscriptions.push(
    controller,
    bar,
    workspace.onDidCloseNotebookDocument(({ uri }) => end(uri.toString())),
    { dispose: () => kernels.forEach((kernel) => kernel.dispose()) }, // a local kernel ends with its window
  );

  return {
    kernels: {
      async getKernel(uri: Uri) {
        const kernel = kernels.get(uri.toString());
        const notebook = workspace.notebookDocuments.find((one) => one.uri.toString() === uri.toString());
        return kernel?.used && notebook ? apiOf(kernel, notebook) : undefined; // even if the kernel is dead
      },
    },
  };
}

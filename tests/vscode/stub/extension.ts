// Stands in for the Jupyter extension, which the machines that test cannot get: its id, its kernel API, its rules (a kernel
// only once the user has run a cell, a modal question, cells before extensions, silence where access is denied), over a
// real ipykernel. What it does not have: kernel pickers, servers, widgets.
import { join } from "node:path";
import type { Jupyter, Kernel, Output } from "@vscode/jupyter-extension";
import {
  type CancellationToken, commands, type ExtensionContext, type NotebookCell, NotebookCellOutput, NotebookCellOutputItem, type NotebookDocument,
  notebooks, type Uri, window, workspace,
} from "vscode";
import { outputOf, RunningKernel } from "./kernel";

const ASKER = "Residscope";

export function activate(context: ExtensionContext): Jupyter {
  const python = process.env["STAND_IN_PYTHON"] ?? "python3";
  const kernels = new Map<string, RunningKernel>();
  const shown = new WeakMap<RunningKernel, Kernel>();
  let access: Promise<boolean> | null = null;
  let order = 0;
  // What tests wait for: the cells' icons are VS Code's to draw, which once showed two at a time.
  const bar = window.createStatusBarItem("runs");
  const runs = { running: 0, succeeded: 0, failed: 0 };
  const say = (): void => void (bar.text = `Stand-in: ${Object.entries(runs).map(([what, many]) => `${String(many)} ${what}`).join(", ")}`);

  function kernelOf(notebook: NotebookDocument): RunningKernel {
    const key = notebook.uri.toString();
    const known = kernels.get(key);
    if (known && known.status !== "dead") return known;
    const { kernelspec } = (notebook.metadata["metadata"] ?? {}) as { kernelspec?: { name?: string } };
    const made = new RunningKernel(python, join(context.extensionPath, "bridge.py"), kernelspec?.name ?? "tests");
    kernels.set(key, made);
    return made;
  }

  const controller = notebooks.createNotebookController("stand-in", "jupyter-notebook", "Stand-in Python");
  controller.supportsExecutionOrder = true;
  controller.supportedLanguages = ["python"];
  controller.interruptHandler = (notebook) => kernelOf(notebook).interrupt();
  controller.executeHandler = (cells, notebook) => {
    const kernel = kernelOf(notebook);
    runs.running += cells.length;
    say();
    for (const cell of cells) {
      void kernel.enqueue(true, () => runCell(kernel, cell)).finally(() => {
        runs.running -= 1;
        say();
      });
    }
  };

  async function runCell(kernel: RunningKernel, cell: NotebookCell): Promise<void> {
    const execution = controller.createNotebookCellExecution(cell);
    kernel.used = true;
    execution.executionOrder = ++order;
    execution.start(Date.now());
    await execution.clearOutput();
    const reply = await kernel.execute(cell.document.getText(), { silent: false, store_history: true }, (message) => {
      const output = outputOf(message);
      if (output) void execution.appendOutput(new NotebookCellOutput(output.items.map(({ mime, data }) => new NotebookCellOutputItem(data, mime))));
    });
    const succeeded = reply ? reply.content["status"] === "ok" : undefined; // neither, where the kernel went away
    if (succeeded !== undefined) runs[succeeded ? "succeeded" : "failed"] += 1;
    execution.end(succeeded, Date.now());
  }

  async function allowed(): Promise<boolean> {
    access ??= Promise.resolve(
      window.showInformationMessage(`Do you want to grant Kernel access to the extension ${ASKER}?`, { modal: true }, "Allow", "Deny"),
    ).then((answer) => answer === "Allow");
    return access;
  }

  async function* executeCode(kernel: RunningKernel, code: string, _token: CancellationToken): AsyncGenerator<Output> {
    const found: Output[] = [];
    let wake: () => void = () => undefined;
    let ended = false;
    let refused = false;
    const denied = (): void => void (refused = true);
    void kernel.enqueue(false, async () => {
      if (!(await allowed())) return denied();
      await kernel.execute(code, { silent: false, store_history: false }, (message) => {
        const output = outputOf(message);
        if (output) found.push(output);
        wake();
      });
    }).then(() => {
      ended = !refused; // the real one neither ends nor fails where access is denied
      wake();
    });
    while (true) {
      while (found.length > 0) yield found.shift() as Output;
      if (ended) return;
      await new Promise<void>((resolve) => (wake = resolve));
    }
  }

  function apiOf(kernel: RunningKernel): Kernel {
    const known = shown.get(kernel);
    if (known) return known;
    const made: Kernel = {
      language: "python",
      get status() {
        return kernel.status;
      },
      onDidChangeStatus: kernel.statusChanged.event,
      executeCode: (code, token) => executeCode(kernel, code, token),
    };
    shown.set(kernel, made);
    return made;
  }

  const focused = (): RunningKernel | undefined => kernels.get(window.activeNotebookEditor?.notebook.uri.toString() ?? "");
  const command = (name: string, act: () => unknown): void => void context.subscriptions.push(commands.registerCommand(`stand-in.${name}`, act));
  command("restart", () => focused()?.restart());
  command("interrupt", () => focused()?.interrupt());
  command("kill", () => focused()?.kill());
  command("allow", () => (access = Promise.resolve(true)));
  command("revoke", () => (access = Promise.resolve(false)));
  say();
  bar.show();
  context.subscriptions.push(
    controller,
    bar,
    workspace.onDidCloseNotebookDocument(({ uri }) => {
      kernels.get(uri.toString())?.dispose();
      kernels.delete(uri.toString());
    }),
    { dispose: () => kernels.forEach((kernel) => kernel.dispose()) },
  );

  return {
    kernels: {
      async getKernel(uri: Uri) {
        const kernel = kernels.get(uri.toString());
        return kernel?.used ? apiOf(kernel) : undefined; // also a dead one
      },
    },
  };
}

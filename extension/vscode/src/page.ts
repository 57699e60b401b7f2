/** A web page with views. It has an HTML document, and carries messages between the views and the kernels. */

import { randomBytes } from "node:crypto";
import { homedir } from "node:os";
import { asChapter, listen } from "@residscope/widgets/node";
import { commands, Uri, type Webview, window, workspace } from "vscode";

import type { Hub } from "./hub";
import type { ToHost, ToPage } from "./messages";

export class Page {
  /** The notebooks whose kernels send messages to the page. */
  readonly #paths = new Set<string>();
  #isLoaded = false;
  #isVisible = true;
  /** Commands that came before the page was loaded. */
  #waiting: ToPage[] = [];
  /** Notebooks in which cells ended while the page was hidden. When it is shown, their caches are listed again. */
  readonly #endedWhileHidden = new Set<string>();

  constructor(
    readonly webview: Webview,
    readonly hub: Hub,
    /** Creates the first message to the page. */
    readonly firstMessage: () => ToPage,
    /** Called when the user uses the page. */
    readonly onUsed: () => void,
    readonly signal: AbortSignal,
  ) {
    const { assets } = hub;
    webview.options = { enableScripts: true, localResourceRoots: [assets] };
    listen(webview.onDidReceiveMessage, (message: ToHost) => void this.#receive(message), signal);
    webview.html = documentOf(webview, assets);
    signal.addEventListener("abort", () => hub.remove(this), { once: true });
  }

  post(message: ToPage): void {
    if (this.signal.aborted) return;
    if (this.#isLoaded) void this.webview.postMessage(message);
    else if (message.say === "command") this.#waiting.push(message);
  }

  /** Sets whether the page is visible. */
  show(visible: boolean): void {
    this.#isVisible = visible;
    this.post({ say: "visible", visible });
    if (!visible) return;
    for (const path of this.#endedWhileHidden) this.post({ say: "cell", path });
    this.#endedWhileHidden.clear();
  }

  /** Reports that a cell has ended. */
  cell(path: string): void {
    if (this.#isVisible) this.post({ say: "cell", path });
    else this.#endedWhileHidden.add(path);
  }

  listensTo(path: string): boolean {
    return this.#paths.has(path);
  }

  async #receive(message: ToHost): Promise<void> {
    switch (message.say) {
      case "hello":
        this.#isLoaded = true;
        this.#paths.clear();
        this.post(this.firstMessage());
        this.post({ say: "visible", visible: this.#isVisible });
        this.post(this.hub.places());
        for (const command of this.#waiting.splice(0)) this.post(command);
        return;
      case "used":
        return this.onUsed();
      case "attach": {
        this.#paths.add(message.path);
        const { state, occupied } = this.hub.connection(message.path);
        // After "renewed", the page sends its earlier requests again.
        if (state.kind === "ready") this.post({ say: "renewed", path: message.path });
        this.post({ say: "state", path: message.path, state });
        this.post({ say: "occupied", path: message.path, occupied });
        return;
      }
      case "ask":
        for (const question of message.questions) {
          this.hub
            .connection(message.path)
            .ask(question, (answer, buffers) => this.post({ say: "answer", path: message.path, answer, buffers }));
        }
        return;
      case "retry":
        return this.hub.connection(message.path).attach();
      case "act":
        return this.hub.connection(message.path).act();
      case "remember":
        return this.hub.memory.set(message.opened);
      case "keep":
        return this.hub.pictures.put(message.path, message.name, message.picture);
      case "recall": {
        const { path, name } = message;
        return this.post({ say: "recalled", path, name, picture: await this.hub.pictures.get(path, name) });
      }
      case "enlarge":
        return this.hub.enlarge(message.opened);
      case "help":
        return openChapter(this.hub.assets, message.chapter);
      case "save":
        return this.post({ say: "saved", number: message.number, saved: await save(message.name, message.bytes) });
    }
  }
}

/** Opens a chapter of the documentation, which is part of the extension, as a preview. */
export async function openChapter(assets: Uri, name: unknown): Promise<void> {
  const chapter = asChapter(name) ?? "vscode";
  const file = Uri.joinPath(assets, "help", `${chapter}.md`);
  await commands.executeCommand("markdown.showPreview", file, undefined, { locked: true });
}

/** Asks the user where to save, and writes the file. Returns false if the user cancels or writing fails. */
async function save(name: string, bytes: ArrayBuffer): Promise<boolean> {
  try {
    const folder = workspace.workspaceFolders?.[0]?.uri ?? Uri.file(homedir());
    const target = await window.showSaveDialog({ defaultUri: Uri.joinPath(folder, name) });
    if (!target) return false;
    await workspace.fs.writeFile(target, new Uint8Array(bytes));
    return true;
  } catch (error) {
    void window.showErrorMessage(
      `Residscope could not save ${name}: ${error instanceof Error ? error.message : String(error)}`,
    );
    return false;
  }
}

/** The views have their own styles. In the sidebar they use the sidebar's background colour. */
const STYLE = `
body { padding: 0; }
#residscope, #residscope > .rs-sidebar:only-child { min-height: 100vh; }
.rs-in-sidebar .residscope.residscope { --rs-surface: var(--vscode-sideBar-background); }`;

function documentOf(webview: Webview, assets: Uri): string {
  const nonce = randomBytes(16).toString("hex");
  const address = (name: string): string => webview.asWebviewUri(Uri.joinPath(assets, name)).toString();
  // Inline styles are allowed, because the views use them to place bars and marks. Nothing is loaded from elsewhere.
  const policy = [
    "default-src 'none';",
    `script-src 'nonce-${nonce}';`,
    `style-src ${webview.cspSource} 'unsafe-inline';`,
    `img-src ${webview.cspSource} data: blob:;`,
    `font-src ${webview.cspSource};`,
  ].join(" ");
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<title>Residscope</title>
<link rel="stylesheet" href="${address("panel.css")}">
<style>${STYLE}</style>
</head>
<body><main id="residscope"></main><script nonce="${nonce}" src="${address("page.js")}"></script></body>
</html>`;
}

/** A web page with views: its HTML document, and its messages to and from the kernels. */

import { randomBytes } from "node:crypto";
import { homedir } from "node:os";
import { listen } from "@residscope/widgets/node";
import { Uri, type Webview, window, workspace } from "vscode";

import type { Hub } from "./hub";
import type { ToHost, ToPage } from "./messages";

export class Page {
  /** The notebooks whose kernels the page listens to. */
  readonly #paths = new Set<string>();
  #isLoaded = false;
  #visible = true;
  /** Commands that came before the page was loaded. */
  #early: ToPage[] = [];
  /** Notebooks whose cells have ended while the page was hidden: their caches are listed when it is shown again. */
  readonly #missed = new Set<string>();

  constructor(
    readonly webview: Webview,
    readonly hub: Hub,
    /** The first message to the page. */
    readonly first: () => ToPage,
    /** Called when the user uses the page. */
    readonly looked: () => void,
    readonly signal: AbortSignal,
  ) {
    const { assets } = hub;
    webview.options = { enableScripts: true, localResourceRoots: [assets] };
    listen(webview.onDidReceiveMessage, (message: ToHost) => void this.#receive(message), signal);
    webview.html = documentOf(webview, assets);
    signal.addEventListener("abort", () => hub.leave(this), { once: true });
  }

  post(message: ToPage): void {
    if (this.signal.aborted) return;
    if (this.#isLoaded) void this.webview.postMessage(message);
    else if (message.say === "command") this.#early.push(message);
  }

  /** Sets whether the page is visible. */
  show(visible: boolean): void {
    this.#visible = visible;
    this.post({ say: "visible", visible });
    if (!visible) return;
    for (const path of this.#missed) this.post({ say: "cell", path });
    this.#missed.clear();
  }

  /** Reports that a cell has ended. */
  cell(path: string): void {
    if (this.#visible) this.post({ say: "cell", path });
    else this.#missed.add(path);
  }

  hears(path: string): boolean {
    return this.#paths.has(path);
  }

  async #receive(message: ToHost): Promise<void> {
    switch (message.say) {
      case "hello":
        this.#isLoaded = true;
        this.#paths.clear();
        this.post(this.first());
        this.post({ say: "visible", visible: this.#visible });
        this.post(this.hub.places());
        for (const command of this.#early.splice(0)) this.post(command);
        return;
      case "looked":
        return this.looked();
      case "attach": {
        this.#paths.add(message.path);
        const { state, occupied } = this.hub.connection(message.path);
        if (state.kind === "ready") this.post({ say: "renewed", path: message.path }); // requests sent before the page was attached are sent again
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
      case "save":
        return this.post({ say: "saved", number: message.number, saved: await save(message.name, message.bytes) });
    }
  }
}

/** Asks the user where to save, writes the file, and returns whether it did. */
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

/** The views have their own styles; in the sidebar they also take its background colour. */
const STYLE = `
body { padding: 0; }
#residscope, #residscope > .rs-sidebar:only-child { min-height: 100vh; }
.rs-in-sidebar .residscope.residscope { --rs-surface: var(--vscode-sideBar-background); }`;

function documentOf(webview: Webview, assets: Uri): string {
  const nonce = randomBytes(16).toString("hex");
  const address = (name: string): string => webview.asWebviewUri(Uri.joinPath(assets, name)).toString();
  // Inline styles are allowed, because the views use them to place bars and marks. Nothing is loaded from elsewhere.
  const policy = `default-src 'none'; script-src 'nonce-${nonce}'; style-src ${webview.cspSource} 'unsafe-inline'; img-src ${webview.cspSource} data: blob:; font-src ${webview.cspSource};`;
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

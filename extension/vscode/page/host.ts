// Sends messages to the extension, and receives its messages.
import { child } from "@residscope/widgets";
import type { ToHost, ToPage } from "../src/messages";

interface VsCode {
  postMessage(message: ToHost): void;
  setState(state: unknown): void;
  getState(): unknown;
}
declare function acquireVsCodeApi(): VsCode;

export class Host {
  readonly #api = acquireVsCodeApi();
  #saves = 0;

  constructor(readonly signal: AbortSignal) {}

  post(message: ToHost): void {
    this.#api.postMessage(message);
  }

  /** Stores the state from which VS Code restores a tab after a reload of the window. */
  keep(state: unknown): void {
    this.#api.setState(state);
  }

  get kept(): unknown {
    return this.#api.getState();
  }

  onMessage<S extends ToPage["say"]>(
    say: S,
    listener: (message: Extract<ToPage, { say: S }>) => void,
    signal = this.signal,
  ): void {
    window.addEventListener(
      "message",
      ({ data, origin }: MessageEvent<ToPage | null | undefined>) => {
        // The extension's messages come through VS Code's frame, which has our origin. Other windows can send messages,
        // too.
        if (origin === window.origin && data?.say === say) listener(data as Extract<ToPage, { say: S }>);
      },
      { signal },
    );
  }

  /** Saves a file. A VS Code page cannot download, so the extension asks where to save, and writes the file. */
  async save(name: string, blob: Blob): Promise<boolean> {
    const number = ++this.#saves;
    const bytes = await blob.arrayBuffer();
    const answered = child(this.signal);
    return new Promise((resolve) => {
      this.onMessage(
        "saved",
        (message) => {
          if (message.number !== number) return;
          answered.abort();
          resolve(message.saved);
        },
        answered.signal,
      );
      this.post({ say: "save", number, name, bytes });
    });
  }
}

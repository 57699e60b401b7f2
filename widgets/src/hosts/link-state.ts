// Shows the state of the link to the kernel, unless the kernel is ready and has the same version: a sentence, and if
// needed a button or a line of code to run.
import { signal as state } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import { child, later, watch } from "../base/lifetime";
import { copy } from "../export/save";
import { prose } from "../ui/prose";
import type { Link } from "./link";

/** While the link attaches, nothing is shown before this time, unless the link has words to show. */
const SHOWN_AFTER_MS = 400;
const NO_CLIPBOARD = "The browser does not let this page use the clipboard. Copy the line by hand.";

export function mountLinkState(parent: HTMLElement, link: Link, signal: AbortSignal): void {
  const isSlow = state(false);
  /** The outcome of the last click on "copy". */
  const copying = state<"copied" | "refused" | null>(null);
  let pause: AbortController | null = null;
  watch(signal, () => {
    const isAttaching = link.state.value.kind === "attaching";
    pause?.abort();
    pause = null;
    isSlow.value = false;
    copying.value = null;
    if (!isAttaching) return;
    pause = child(signal);
    later(SHOWN_AFTER_MS, pause.signal, () => (isSlow.value = true));
  });

  watch(signal, () => {
    const now = link.state.value;
    parent.dataset["link"] = now.kind;
    const copyLine = (line: string) => async (): Promise<void> => {
      const isCopied = await copy(Promise.resolve(line), parent);
      const code = parent.querySelector(".rs-line code");
      if (signal.aborted || code?.textContent !== line) return; // the link has another state by now
      copying.value = isCopied ? "copied" : "refused";
      if (!isCopied) parent.ownerDocument.getSelection()?.selectAllChildren(code);
    };
    const act = (label: string) =>
      html`<button type="button" class="rs-act" @click=${() => link.act?.()}>${label}</button>`;
    render(
      now.kind === "none"
        ? html`<p>${prose(now.words)}</p>`
        : now.kind === "attaching" && now.words
          ? html`<p role="status">${prose(now.words)}</p>${now.act ? html`<p>${act(now.act)}</p>` : nothing}`
          : now.kind === "attaching" && isSlow.value
            ? html`<p>${
                now.busy
                  ? "Waiting for the running cell: this kernel answers only between cells."
                  : "Attaching to the kernel …"
              }</p>`
            : now.kind !== "attaching" && now.words
              ? html`<p role="alert">${prose(now.words)}</p>
          ${
            now.line
              ? html`<p class="rs-line"><code>${now.line}</code><button type="button" class="rs-quiet"
              @click=${copyLine(now.line)}>${copying.value === "copied" ? "copied" : "copy"}</button></p>${
                copying.value === "refused" ? html`<p role="status">${NO_CLIPBOARD}</p>` : nothing
              }`
              : nothing
          }
          ${
            now.kind === "refused"
              ? html`<p>${now.act ? html`${act(now.act)} ` : nothing}<button type="button"
              class="rs-act" @click=${() => link.retry()}>Try again</button></p>`
              : nothing
          }`
              : nothing,
      parent,
    );
  });
}

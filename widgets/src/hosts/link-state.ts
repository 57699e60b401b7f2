// The state of the link, if the kernel does not simply answer: a sentence, and a line of code to run.
import { signal as state } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import { child, later, watch } from "../base/lifetime";
import { prose } from "../ui/prose";
import type { Link } from "./link";

/** Attaching that takes less time than this is not shown. */
const MOMENT_MS = 400;

export function mountLinkState(parent: HTMLElement, link: Link, signal: AbortSignal): void {
  const slow = state(false);
  const copied = state(false);
  let pause: AbortController | null = null;
  watch(signal, () => {
    const attaching = link.state.value.kind === "attaching";
    pause?.abort();
    pause = null;
    slow.value = false;
    copied.value = false;
    if (!attaching) return;
    pause = child(signal);
    later(MOMENT_MS, pause.signal, () => (slow.value = true));
  });

  watch(signal, () => {
    const now = link.state.value;
    parent.dataset["link"] = now.kind;
    const copy = (line: string) => async (): Promise<void> => {
      await navigator.clipboard.writeText(line);
      copied.value = true;
    };
    const act = (label: string) =>
      html`<button type="button" class="rs-act" @click=${() => link.act?.()}>${label}</button>`;
    render(
      now.kind === "none"
        ? html`<p>${prose(now.words)}</p>`
        : now.kind === "attaching" && now.words
          ? html`<p role="status">${prose(now.words)}</p>${now.act ? html`<p>${act(now.act)}</p>` : nothing}`
          : now.kind === "attaching" && slow.value
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
              @click=${copy(now.line)}>${copied.value ? "copied" : "copy"}</button></p>`
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

// The choice of the kernel whose caches are listed: the kernel of the focused notebook, or one that the user picks.

import type { ReadonlySignal, Signal } from "@preact/signals-core";
import { html, render } from "lit-html";
import { shown } from "../base/legible";
import { watch } from "../base/lifetime";

export interface Place {
  /** The path of the notebook or console, which is unique. */
  path: string;
  label: string;
}

export interface Places {
  /** The notebook or console that has, or last had, the focus. */
  focused: ReadonlySignal<Place | null>;
  /** All notebooks and consoles with a running kernel. */
  running: ReadonlySignal<Place[]>;
  /** The path that the user picked; null if the sidebar follows the focus. */
  picked: Signal<string | null>;
}

export function mountKernels(
  parent: HTMLElement,
  places: Places,
  actions: { refresh: () => void; help: () => void },
  signal: AbortSignal,
): void {
  watch(signal, () => {
    const focused = places.focused.value;
    const picked = places.picked.value;
    const running = places.running.value;
    const isRunning = picked === null || running.some(({ path }) => path === picked);
    const choose = (event: Event): void => {
      const select = event.target as HTMLSelectElement;
      places.picked.value = select.value === "" ? null : select.value.slice(1);
    };
    render(
      html`<select aria-label="Kernel" title="The kernel whose caches are listed" @change=${choose}>
          <option value=""
              .selected=${picked === null}>${
                focused ? `${shown(focused.label)} (the one in focus)` : "the notebook in focus"
              }</option>
          ${running.map(
            ({ path, label }) => html`<option value=${`=${path}`}
              .selected=${path === picked}>${shown(label)}</option>`,
          )}
          ${
            isRunning
              ? null
              : html`<option value=${`=${picked}`}
              .selected=${true}>${shown(picked ?? "")} (not running)</option>`
          }
        </select>
        <button type="button" class="rs-quiet" aria-label="List the caches again" title="List the caches again"
            @click=${actions.refresh}>⟳</button>
        <button type="button" class="rs-quiet rs-side-help" aria-label="Help" title="Help"
            @click=${actions.help}>?</button>`,
      parent,
    );
  });
}

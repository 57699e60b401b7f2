// Hold: the colour scale stays the same while prompts, positions and caches change, so that pictures can be compared. A
// new target has other values, so it ends the hold.
import { type ReadonlySignal, signal as state, untracked } from "@preact/signals-core";
import { html, type TemplateResult } from "lit-html";
import { watch } from "../base/lifetime";
import type { Store } from "./store";
import { targetKey } from "./target";

export interface Range {
  low: number;
  high: number;
}

export class Hold {
  readonly #on = state(false);
  readonly #kept = new Map<string, Range>();
  readonly on: ReadonlySignal<boolean> = this.#on;

  /**
   * The colour range of a picture. While the scale is held, it is the first range that the picture had since the hold
   * began.
   */
  range(picture: string, own: Range): Range {
    if (!this.#on.value || !(own.high > own.low)) return own;
    const kept = this.#kept.get(picture) ?? own;
    this.#kept.set(picture, kept);
    return kept;
  }

  toggle(): void {
    this.#kept.clear();
    this.#on.value = !this.#on.value;
  }

  /** Ends the hold when the target changes. */
  follow(store: Store, signal: AbortSignal): void {
    let before: string | null = null;
    watch(signal, () => {
      const key = targetKey(store.target.value);
      untracked(() => {
        if (before !== null && before !== key && this.#on.value) this.toggle();
        before = key;
      });
    });
  }

  button(what: string): TemplateResult {
    const on = this.on.value;
    const title = on
      ? "The colours keep their range while prompts and positions change. Click to end this; a new target ends it, too."
      : "Keep this colour range while prompts and positions change, so that pictures can be compared";
    return html`<button type="button" class="rs-quiet rs-hold" aria-pressed=${on}
        aria-label="hold the colours of ${what}"
      title=${title}
      @click=${() => this.toggle()}>hold</button>`;
  }
}

type View = "heads" | "positions";
const holds = new WeakMap<Store, Record<View, Hold>>();

export function holdOf(store: Store, view: View): Hold {
  let found = holds.get(store);
  if (!found) holds.set(store, (found = { heads: new Hold(), positions: new Hold() }));
  return found[view];
}

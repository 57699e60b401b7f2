// Undoes Esc, step by step: restores what an Esc cleared, as far as it exists in the current cache.
import { batch, type ReadonlySignal, type Signal } from "@preact/signals-core";
import { parseHead, quoted } from "../base/format";
import { UNDO } from "../base/keyboard";
import type { Sentence } from "../base/sentence";
import type { Position } from "./target";

/** What one Esc has cleared. */
interface Cleared {
  heads?: string[];
  preview?: string | null;
  position?: number | null;
  layer?: number | null;
}
/** The part of a store that Esc clears, and what is needed to check that it still exists. */
interface Selected {
  readonly heads: Signal<string[]>;
  readonly preview: Signal<string | null>;
  readonly position: Signal<Position>;
  readonly layer: Signal<number | null>;
  readonly ranking: Signal<"heads" | "neurons">;
  readonly sentence: Signal<Sentence | null>;
  readonly facts: ReadonlySignal<{ layers: number; heads: number; positions: number } | null>;
  isAbsent(head: string): boolean;
  tokenName(position: number): string;
}
const MOST_STEPS = 50;

export class Undo {
  readonly #steps: Cleared[] = [];

  constructor(readonly store: Selected) {}

  keep(cleared: Cleared): void {
    this.#steps.push(cleared);
    if (this.#steps.length > MOST_STEPS) this.#steps.shift();
    const names = this.#named(cleared);
    this.store.sentence.value = [`Cleared: ${listed(names)}. ${UNDO} restores ${names.length === 1 ? "it" : "them"}.`];
  }

  back(): void {
    const { store } = this;
    for (let cleared = this.#steps.pop(); cleared; cleared = this.#steps.pop()) {
      const { heads = [], preview = null, position = null, layer = null } = this.#stillThere(cleared);
      const names = this.#named({ heads, preview, position, layer });
      if (names.length === 0) continue; // another cache is in view
      batch(() => {
        if (heads.length > 0)
          store.heads.value = [...heads, ...store.heads.value.filter((head) => !heads.includes(head))];
        if (preview !== null) store.preview.value = preview;
        if (position !== null) store.position.value = position;
        if (layer !== null) [store.layer.value, store.ranking.value] = [layer, "neurons"];
      });
      store.sentence.value = [
        `Restored: ${listed(names)}.${this.#steps.length > 0 ? ` ${UNDO} goes one step further back.` : ""}`,
      ];
      return;
    }
    store.sentence.value = ["Nothing to restore."];
  }

  /** The part of what was cleared that exists in the current cache. */
  #stillThere({ heads = [], preview = null, position = null, layer = null }: Cleared): Cleared {
    const { layers = 0, heads: count = 0, positions = 0 } = this.store.facts.value ?? {};
    const has = (name: string): boolean => {
      const head = parseHead(name);
      return head !== null && head.layer < layers && head.head < count && !this.store.isAbsent(name);
    };
    return {
      heads: heads.filter(has),
      preview: preview !== null && has(preview) ? preview : null,
      position: position !== null && position < positions ? position : null,
      layer: layer !== null && layer < layers ? layer : null,
    };
  }

  #named({ heads = [], preview = null, position = null, layer = null }: Cleared): string[] {
    const places = [
      position === null ? "" : `position ${position}, ${quoted(this.store.tokenName(position))}`,
      layer === null ? "" : `layer ${layer}`,
    ];
    return [...new Set([...heads, preview ?? "", ...places])].filter(Boolean);
  }
}

/** "L9H9, L9H6, L10H0 and 3 more" */
function listed(names: string[]): string {
  const first = names.length > 4 ? [...names.slice(0, 3), `${names.length - 3} more`] : names;
  return [first.slice(0, -1).join(", "), first.at(-1) ?? ""].filter(Boolean).join(" and ");
}

// Esc taken back, step by step: what it let go comes back, as far as the cache in view has it.
import { batch, type ReadonlySignal, type Signal } from "@preact/signals-core";
import { parseHead, quoted } from "../base/format";
import { UNDO } from "../base/keys";
import type { Sentence } from "../base/sentence";
import type { Position } from "./target";

/** What one Esc let go. */
interface LetGo {
  heads?: string[];
  preview?: string | null;
  position?: number | null;
  layer?: number | null;
}
/** What of a panel's selection Esc lets go, and what tells whether it is still there. */
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
  readonly #gone: LetGo[] = [];

  constructor(readonly store: Selected) {}

  keep(gone: LetGo): void {
    this.#gone.push(gone);
    if (this.#gone.length > MOST_STEPS) this.#gone.shift();
    const names = this.#named(gone);
    this.store.sentence.value = [
      `Let go: ${listed(names)}. ${UNDO} brings ${names.length === 1 ? "it" : "them"} back.`,
    ];
  }

  back(): void {
    const { store } = this;
    for (let gone = this.#gone.pop(); gone; gone = this.#gone.pop()) {
      const { heads = [], preview = null, position = null, layer = null } = this.#there(gone);
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
        `Back: ${listed(names)}.${this.#gone.length > 0 ? ` ${UNDO} goes one step further back.` : ""}`,
      ];
      return;
    }
    store.sentence.value = ["Nothing to bring back: Esc has let nothing go."];
  }

  /** What of it there is in the cache in view. */
  #there({ heads = [], preview = null, position = null, layer = null }: LetGo): LetGo {
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

  #named({ heads = [], preview = null, position = null, layer = null }: LetGo): string[] {
    const places = [
      position === null ? "" : `position ${position}, ${quoted(this.store.tokenName(position))}`,
      layer === null ? "" : `layer ${layer}`,
    ];
    return [...new Set([...heads, preview ?? "", ...places])].filter(Boolean);
  }
}

/** "L9H9, L9H6 and 4 more" */
function listed(names: string[]): string {
  const first = names.length > 4 ? [...names.slice(0, 3), `${names.length - 3} more`] : names;
  return [first.slice(0, -1).join(", "), first.at(-1) ?? ""].filter(Boolean).join(" and ");
}

// Which tokens of a long prompt the page shows. Showing all of them would be slow, so the page shows a stretch: some
// consecutive tokens. A slider moves the stretch.
import { computed, type ReadonlySignal, signal as state } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import { element, watch } from "../base/lifetime";
import type { Span } from "../draw/plane";
import type { Store } from "../state/store";

/** Prompts of up to MAX_WHOLE tokens are shown completely. Of a longer prompt, STRETCH tokens are shown at a time. */
const MAX_WHOLE = 512;
const STRETCH = 256;

export interface Stretch {
  shown: ReadonlySignal<Span>;
  /** Moves the stretch to this position, unless the stretch contains it already. */
  reveal: (position: number) => void;
}

/**
 * `noun` names the tokens in the labels for screen readers. `places` are the positions that can be shown; null (the
 * default) means all. The stretch is a range of indices of `places`.
 */
export function mountStretch(
  parent: HTMLElement,
  store: Store,
  noun: string,
  signal: AbortSignal,
  places: ReadonlySignal<readonly number[] | null> = computed(() => null),
): Stretch {
  const from = state(0);
  const size = computed(() => places.value?.length ?? store.tokens.value.length);
  const indexOf = (position: number): number => places.peek()?.indexOf(position) ?? position;
  const positionOf = (index: number): number => places.value?.[index] ?? index;
  const shown = computed((): Span => {
    if (size.value <= MAX_WHOLE) return { start: 0, stop: size.value };
    const start = Math.max(0, Math.min(size.value - STRETCH, from.value));
    return { start, stop: start + STRETCH };
  });
  const reveal = (position: number): void => {
    const { start, stop } = shown.peek();
    const index = indexOf(position);
    if (size.peek() <= MAX_WHOLE || index < 0 || (index >= start && index < stop)) return;
    from.value = Math.max(0, Math.min(size.peek() - STRETCH, index - STRETCH / 2));
  };
  watch(signal, () => {
    const position = store.destination.value;
    if (size.value > 0 && position !== null) reveal(position);
  });

  const place = element("div", "rs-stretch");
  parent.append(place);
  watch(signal, () => {
    const { start, stop } = shown.value;
    const all = size.value;
    place.hidden = stop - start === all;
    const to = (next: number) => (): void => void (from.value = Math.max(0, Math.min(all - STRETCH, next)));
    const [first, last] = [positionOf(start), positionOf(stop - 1)];
    const count = store.tokens.value.length;
    const words = `positions ${first} to ${last} of ${count}`;
    render(
      place.hidden
        ? nothing
        : html`<button type="button" class="rs-quiet" ?disabled=${start === 0} aria-label="earlier ${noun}"
            @click=${to(start - STRETCH)}>‹</button>
      <input type="range" aria-label="which ${noun} are shown" aria-valuetext=${words} min="0" max=${all - STRETCH}
          step="1" .value=${String(start)}
        @input=${(event: Event) => to(Number((event.target as HTMLInputElement).value))()}>
      <button type="button" class="rs-quiet" ?disabled=${stop === all} aria-label="later ${noun}"
          @click=${to(start + STRETCH)}>›</button><span title=${words}>${first}–${last} of ${count}</span>`,
      place,
    );
  });
  return { shown, reveal };
}

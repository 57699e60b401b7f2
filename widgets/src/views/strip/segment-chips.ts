// The folded token strip: each segment is one chip. A click, Enter or Space unfolds it into its tokens, and folds it
// again.
import { computed, type ReadonlySignal } from "@preact/signals-core";
import { html, type TemplateResult } from "lit-html";
import { plural, quoted } from "../../base/format";
import { legibleSentence } from "../../base/legible";
import type { Span } from "../../draw/plane";
import type { Store } from "../../state/store";
import type { SegmentLabel } from "../../wire/protocol.gen";

/** What the strip has in its row: a token, or the chip of a segment. */
export type Item = { position: number } | { segment: SegmentLabel; index: number };

/** The positions of the unfolded tokens; null if there are no segments, so that all tokens are shown. */
export function unfoldedPositions(store: Store): ReadonlySignal<readonly number[] | null> {
  return computed(() => {
    const segments = store.segmentsShown.value;
    if (!segments) return null;
    const open = segments.filter(({ start }) => store.unfolded.value.has(start));
    return open.flatMap(({ start, end }) => Array.from({ length: end - start }, (_, at) => start + at));
  });
}

/** The row of the strip. `shown` is the part of all tokens, or of the unfolded tokens, for which there is room. */
export function itemsOf(store: Store, positions: readonly number[] | null, shown: Span): Item[] {
  const segments = store.segmentsShown.value;
  if (!segments || !positions)
    return Array.from({ length: shown.stop - shown.start }, (_, nth) => ({ position: shown.start + nth }));
  const tokens = positions.slice(shown.start, shown.stop);
  return segments.flatMap((segment, index): Item[] => [
    { segment, index },
    ...tokens.filter((at) => segment.start <= at && at < segment.end).map((position) => ({ position })),
  ]);
}

export function toggle(store: Store, { start }: SegmentLabel): void {
  const open = new Set(store.unfolded.peek());
  if (!open.delete(start)) open.add(start);
  store.unfolded.value = open;
}

export const isOpen = (store: Store, { start }: SegmentLabel): boolean => store.unfolded.value.has(start);

/** The name of a segment, safe to show. */
export const segmentName = ({ name }: SegmentLabel): string => legibleSentence(name);

/** “34 tokens, positions 5 to 38”. */
export function extent({ start, end }: SegmentLabel): string {
  const count = plural(end - start, "token");
  return end - start === 1 ? `${count}, position ${start}` : `${count}, positions ${start} to ${end - 1}`;
}

export function chip(
  store: Store,
  { segment, index }: { segment: SegmentLabel; index: number },
  { holds, isTabStop }: { holds: boolean; isTabStop: boolean },
): TemplateResult {
  const open = isOpen(store, segment);
  const [name, how] = [segmentName(segment), extent(segment)];
  const classes = `rs-token rs-segment${open ? " rs-open" : ""}${segment.named === false ? " rs-rest" : ""}`;
  return html`<div role="option" class=${classes} data-segment=${index} tabindex=${isTabStop ? 0 : -1}
    aria-selected=${holds && !open} aria-label="segment ${name}, ${how}, ${open ? "unfolded" : "folded"}"
    title="${quoted(name)}: ${how}"><span class="rs-segment-name">${name}</span><small
    >${segment.end - segment.start}</small></div>`;
}

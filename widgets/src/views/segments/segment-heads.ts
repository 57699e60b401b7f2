// The heads through which one segment reads another most. A click pins a head.
import type { ReadonlySignal } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import { element, watch } from "../../base/lifetime";
import { css, limitOf } from "../../draw/colours";
import type { Store } from "../../state/store";
import type { SegmentLabel } from "../../wire/protocol.gen";
import { colourOf, written } from "../attention/attention-scale";
import { addArrowKeys } from "../heads/rank-line";
import { segmentName } from "../strip/segment-chips";
import type { SegmentHeads } from "./segment-data";

export function mountSegmentHeads(
  parent: HTMLElement,
  store: Store,
  ranked: ReadonlySignal<SegmentHeads | null>,
  signal: AbortSignal,
): void {
  const title = element("p", "rs-segment-title");
  const list = element("div", "rs-segment-list", { role: "group", "aria-label": "Heads that read a segment most" });
  parent.append(title, list);
  addArrowKeys(list, ".rs-segment-head", signal);
  watch(signal, () => {
    const found = ranked.value;
    const segments = store.segmentsShown.value ?? [];
    if (!found) return (render(nothing, title), render(nothing, list));
    const { reply, values, weighting } = found;
    const name = (at: number): string => segmentName(segments[at] ?? ({ name: "", start: 0, end: 0 } as SegmentLabel));
    const who =
      reply.destination === null ? html`All later positions read` : html`<b>${name(reply.destination)}</b> reads`;
    render(html`${who} <b>${name(reply.source)}</b> most through these heads (of ${reply.count})`, title);
    const most = limitOf(values);
    const pinned = store.heads.value;
    const theme = store.theme.value;
    const colour = (isNegative: boolean): string => css(colourOf(weighting, isNegative ? -0.72 : 0.72, 1, theme));
    render(
      reply.heads.map((head, nth) => {
        const value = values[nth] ?? NaN;
        const width = most > 0 ? (100 * Math.abs(value)) / most : 0;
        const number = written(weighting, value, most);
        return html`<button type="button" class="rs-segment-head" data-head=${head} data-value=${value.toFixed(5)}
            aria-pressed=${pinned.includes(head)} aria-label="${head}: ${number}"
            title="Click to ${pinned.includes(head) ? "unpin" : "pin"} ${head}"
          @pointerenter=${() => store.hover(head)} @pointerleave=${() => store.hover(null)}
          @focus=${() => store.hover(head)} @blur=${() => store.hover(null)} @click=${() => store.togglePin(head)}
          ><span class="rs-name">${head}</span><span class="rs-segment-track"><i
            style="width:${width.toFixed(1)}%;--of:${colour(value < 0)}"></i></span><span
            class="rs-number">${number}</span></button>`;
      }),
      list,
    );
  });
}

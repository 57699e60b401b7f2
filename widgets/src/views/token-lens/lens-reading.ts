// The contents of one cell of the token lens: its likeliest tokens, and the rank of the answer among them.
import { html, nothing, render } from "lit-html";
import { visible } from "../../base/format";
import { watch } from "../../base/lifetime";
import { LISTED } from "../../state/questions";
import type { Store } from "../../state/store";
import type { Component } from "../../wire/components";
import type { LensCell } from "../../wire/protocol.gen";
import { answerName, hasRank, probability } from "./lens-words";

export interface Read {
  cell: LensCell;
  point: Component;
  position: number;
}

export function mountReading(parent: HTMLElement, store: Store, signal: AbortSignal, read: () => Read | null): void {
  watch(signal, () => {
    const found = read();
    if (!found) return render(nothing, parent);
    const { cell, point, position } = found;
    const answer = answerName(store);
    const ranked = hasRank(cell) && answer !== null;
    const line = (
      text: string,
      p: number,
      place: number | string,
      isAnswer: boolean,
    ): unknown => html`<li class=${isAnswer ? "rs-answer" : ""}>
      <small>${place}</small><bdi class="rs-name">${text}</bdi><span class="rs-track"><i
          style="width:${
            100 * Math.max(0, Math.min(1, p))
          }%"></i></span><span class="rs-number">${probability(p)}</span></li>`;
    render(
      html`<h4><span>${point.label} at</span> <bdi class="rs-name">${store.tokenName(position)}</bdi></h4>
        <ol>${cell.tokens
          .slice(0, LISTED)
          .map((text, i) => line(visible(text), cell.probabilities[i] ?? NaN, i + 1, ranked && cell.rank === i + 1))}
        ${ranked && cell.rank > cell.tokens.length ? line(answer, cell.answer, cell.rank, true) : nothing}</ol>`,
      parent,
    );
  });
}

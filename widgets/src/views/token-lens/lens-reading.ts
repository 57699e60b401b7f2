// The contents of one cell of the token lens: the likeliest tokens, and the answer with its rank.
import { html, nothing, render } from "lit-html";
import { visible } from "../../base/format";
import { watch } from "../../base/lifetime";
import { LISTED } from "../../state/questions";
import type { Store } from "../../state/store";
import type { Component } from "../../wire/components";
import type { LensCell } from "../../wire/protocol.gen";
import { answerName, hasRank, probability } from "./lens-words";

export interface LensReading {
  cell: LensCell;
  point: Component;
  position: number;
}

export function mountReading(
  parent: HTMLElement,
  store: Store,
  signal: AbortSignal,
  read: () => LensReading | null,
): void {
  watch(signal, () => {
    const reading = read();
    if (!reading) return render(nothing, parent);
    const { cell, point, position } = reading;
    const answer = answerName(store);
    const isRanked = hasRank(cell) && answer !== null;
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
          .map((text, i) => line(visible(text), cell.probabilities[i] ?? NaN, i + 1, isRanked && cell.rank === i + 1))}
        ${isRanked && cell.rank > cell.tokens.length ? line(answer, cell.answer, cell.rank, true) : nothing}</ol>`,
      parent,
    );
  });
}

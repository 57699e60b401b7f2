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
  /** The same cell in run B, if both runs are shown; then `cell` is the cell in run A. */
  second?: LensCell;
  /** The run of `cell`, if two runs are compared. */
  run?: "A" | "B";
}
/** The number of tokens that are listed for each run, if both runs are shown. */
const OF_EACH = 4;

export function mountReading(
  parent: HTMLElement,
  store: Store,
  signal: AbortSignal,
  read: () => LensReading | null,
): void {
  watch(signal, () => {
    const reading = read();
    if (!reading) return render(nothing, parent);
    const { cell, point, position, second, run } = reading;
    const answer = answerName(store);
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
    const list = (cell: LensCell, count: number): unknown => {
      const [rank, p] = answer !== null && hasRank(cell) ? [cell.rank, cell.answer] : [0, 0];
      const shown = cell.tokens.slice(0, count);
      return html`<ol>${shown.map((text, i) =>
        line(visible(text), cell.probabilities[i] ?? NaN, i + 1, rank === i + 1),
      )}
        ${rank > shown.length && answer !== null ? line(answer, p, rank, true) : nothing}</ol>`;
    };
    const head = html`<h4><span>${point.label} at</span> <bdi class="rs-name">${store.tokenName(position)}</bdi>${
      run ? html` <span>in ${run}</span>` : nothing
    }</h4>`;
    render(
      second
        ? html`${head}<h5>A</h5>${list(cell, OF_EACH)}<h5>B</h5>${list(second, OF_EACH)}`
        : html`${head}${list(cell, LISTED)}`,
      parent,
    );
  });
}

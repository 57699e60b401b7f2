// The controls of the tab "why". For an attention score, the user chooses the sides or the pair map, what the source is
// compared with, and the size of the pair map. For what a head moves, the user chooses the source.
import type { ReadonlySignal, Signal } from "@preact/signals-core";
import { html, nothing, render, type TemplateResult } from "lit-html";
import { watch } from "../../base/lifetime";
import { PAIRED } from "../../state/questions";
import type { Store } from "../../state/store";
import { behindHead, readAt, scoreIn, throughHead } from "../../state/target";
import { instead } from "../../state/trail";
import { factsOf } from "../../state/trail-words";
import type { AttentionScore, Target } from "../../wire/protocol.gen";
import { written } from "../attention/attention-scale";
import type { Row } from "./head-row";

type Versus = NonNullable<AttentionScore["versus"]> | null;

const SIZES = [PAIRED, 20, 40];
/** A menu has about this many tokens at most. The chosen token is always among them. */
const MOST_TOKENS = 400;

export function mountControls(
  parent: HTMLElement,
  store: Store,
  k: Signal<number>,
  sources: ReadonlySignal<Row | null>,
  signal: AbortSignal,
): void {
  watch(signal, () => {
    const target = store.target.value;
    const score = scoreIn(target);
    if (!score) return render(sourceChoice(store, target, sources.value), parent);
    const { versus = "most", source, destination } = score;
    const end = destination === "last" ? (store.lastPosition.value ?? store.tokens.value.length - 1) : destination;
    const most = factsOf(store, target)?.versus;
    const named = versus === "most" && typeof most === "number" ? `${store.tokenName(most)}, ` : "";
    const tokens = Array.from({ length: end + 1 }, (_, at) => at).filter(
      (at) => at !== source && (at > end - MOST_TOKENS || at === 0 || at === versus),
    );
    const choose = (event: Event): void => {
      const { value } = event.target as HTMLSelectElement;
      const to: Versus = value === "none" ? null : value === "most" || value === "mean" ? value : Number(value);
      instead(store, { ...target, inner: { ...score, versus: to } });
    };
    const option = (value: string, words: string) =>
      html`<option value=${value} ?selected=${value === String(versus ?? "none")}>${words}</option>`;
    const grow = (by: number) => (): void => {
      k.value = SIZES[SIZES.indexOf(k.peek()) + by] ?? k.peek();
    };
    render(
      html`<label class="rs-why-versus">compared with <span class="rs-choice"><select
          aria-label="What the source is compared with" .value=${String(versus ?? "none")} @change=${choose}>
          ${option("most", `${named}the other token with the most attention`)}
          ${option("mean", "what it reads on average")}
          ${option("none", "nothing: the raw score")}
          <optgroup label="another token">${tokens.map((at) => option(String(at), store.tokenName(at)))}</optgroup>
        </select></span></label>
        ${
          store.whyShows.value === "pairs"
            ? html`<div class="rs-stepper" role="group" aria-label="Components of each side">
              <button type="button" aria-label="Fewer components" ?disabled=${k.value === SIZES[0]}
                  @click=${grow(-1)}>−</button>
              <span>${k.value} × ${k.value}</span>
              <button type="button" aria-label="More components" ?disabled=${k.value === SIZES.at(-1)}
                  @click=${grow(1)}>+</button>
            </div>`
            : nothing
        }
        <div class="rs-switch" role="group" aria-label="What is shown of the score">
          ${(
            [
              ["sides", "sides", "Query side and key side; each alone sums to the whole score"],
              ["pairs", "pair map", "What each pair of a query component and a key component adds to the score"],
            ] as const
          ).map(
            ([
              name,
              words,
              tip,
            ]) => html`<button type="button" aria-pressed=${store.whyShows.value === name} title=${tip}
            @click=${() => (store.whyShows.value = name)}>${words}</button>`,
          )}
        </div>`,
      parent,
    );
  });
}

/** The choice of the source of what a head moves. The sources that the head reads most come first. */
function sourceChoice(store: Store, target: Target, row: Row | null): TemplateResult | typeof nothing {
  const head = target.through?.at(-1);
  if (!head || head.source === null) return nothing;
  const behind = behindHead(target);
  const at = readAt(behind, store.chosenPosition.value);
  const end = at === "last" ? store.lastPosition.value : at;
  const weightOf = (source: number): number => row?.values[source - row.start] ?? 0;
  const found = Array.from({ length: (end ?? store.tokens.value.length - 1) + 1 }, (_, source) => source)
    .sort((a, b) => weightOf(b) - weightOf(a) || a - b)
    .filter((source, nth) => nth < MOST_TOKENS || source === head.source);
  const choose = (event: Event): void => {
    const source = Number((event.target as HTMLSelectElement).value);
    instead(store, throughHead(behind, { ...head, source }));
  };
  return html`<label class="rs-why-versus">from <span class="rs-choice"><select
      aria-label="The source that the head reads" title="Sources, those that the head reads most first"
      .value=${String(head.source)} @change=${choose}>${found.map(
        (source) =>
          html`<option value=${source} ?selected=${source === head.source}>${store.tokenName(source)}${
            row ? ` ${written("pattern", weightOf(source))}` : ""
          }</option>`,
      )}</select></span></label>`;
}

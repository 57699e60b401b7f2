// One line of a ranking of heads or neurons: a name, a bar and a number. For a mean over prompts, the line also has a
// whisker (± one standard deviation). If `dots` is true and each prompt's value is known, it has a dot for each prompt.
// This file also has the arrow keys for the list.
import { html, nothing, svg, type TemplateResult } from "lit-html";
import { side, signed } from "../../base/format";
import type { Value } from "../../state/ranked";
import type { Spread } from "./spread";

export interface Ranked extends Value {
  spread?: Spread | null;
  isEstimate?: boolean;
}
/**
 * How far a list's lines extend from zero: `own` in the direction of the line's own sign, `other` in the opposite
 * direction. All lines of a list have the same reach.
 */
export interface Reach {
  own: number;
  other: number;
}

/** A reach that is large enough for every bar, whisker and dot of a list. */
export function reachOf(lines: Ranked[]): Reach {
  const reach = { own: 0, other: 0 };
  const take = (value: number): void => {
    if (value > reach.own) reach.own = value;
    if (-value > reach.other) reach.other = -value;
  };
  for (const { value, spread } of lines) {
    const side = value < 0 ? -1 : 1;
    take(value * side);
    if (!spread || !Number.isFinite(spread.std)) continue;
    take(value * side + spread.std);
    take(value * side - spread.std);
    spread.each?.forEach((one) => take(one * side));
  }
  return reach;
}

export function rankLine(
  { name, value, spread = null, isEstimate = false }: Ranked,
  { own, other }: Reach,
  largest: number,
  dots = false,
): TemplateResult {
  const sign = value < 0 ? -1 : 1;
  const written = isEstimate ? signed(value, largest, -1) : signed(value, largest);
  const at = (v: number): number => (own + other > 0 ? ((v * sign + other) / (own + other)) * 100 : 0);
  return html`<span class="rs-name">${name}</span>
    <span class="rs-track ${dots && spread?.each ? "rs-with-dots" : ""}">
      <i class="${sign < 0 ? "rs-minus" : "rs-plus"} ${isEstimate ? "rs-estimate" : ""}"
        style="margin-left:${at(0)}%;width:${at(value) - at(0)}%"></i>
      ${other > 0 ? html`<b class="rs-origin" style="left:${at(0)}%"></b>` : nothing}
      ${
        spread && Number.isFinite(spread.std)
          ? html`<b class="rs-whisker"
          style="left:${at(value - sign * spread.std)}%;width:${
            at(value + sign * spread.std) - at(value - sign * spread.std)
          }%"></b>`
          : nothing
      }
      ${dots && spread?.each ? dotStrip(spread.each, at) : nothing}
    </span>
    <span class="rs-number ${side(written)}">${isEstimate ? "≈" : ""}${written}</span>`;
}

function dotStrip(each: Float32Array, at: (value: number) => number): TemplateResult {
  const path = [...each]
    .filter(Number.isFinite)
    .map((value) => `M${at(value).toFixed(2)} 5h0`)
    .join("");
  return html`<svg class="rs-dots" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">${svg`<path
      d=${path} vector-effect="non-scaling-stroke"></path>`}</svg>`;
}

/** Up, down, Home and End move the focus among the list's lines. */
export function addArrowKeys(list: HTMLElement, selector: string, signal: AbortSignal): void {
  list.addEventListener(
    "keydown",
    (event) => {
      const lines = [...list.querySelectorAll<HTMLElement>(selector)];
      const at = lines.findIndex((line) => line === event.target);
      const last = lines.length - 1;
      const to = { ArrowDown: Math.min(at + 1, last), ArrowUp: Math.max(at - 1, 0), Home: 0, End: last }[event.key];
      if (at < 0 || to === undefined) return;
      event.preventDefault();
      lines[to]?.focus();
    },
    { signal },
  );
}

// One line of the ranking of two compared runs: a bar for what a head adds in run A, below it a bar for run B, and the
// difference as a number. The bars are grey: blue and orange are the signs of the difference, here and in the map.
import { html, nothing, type TemplateResult } from "lit-html";
import { side, signed } from "../../base/format";
import type { Pair } from "../../state/ranked";

/** The ends of the axis that all lines share. Zero is always between them. */
export function endsOfPairs(pairs: Pair[]): { low: number; high: number } {
  const all = pairs.flatMap(({ first, second }) => [first, second]).filter(Number.isFinite);
  return { low: Math.min(0, ...all), high: Math.max(0, ...all) };
}

export function pairLine(
  { name, first, second, value }: Pair,
  ends: { low: number; high: number },
  largest: number,
): TemplateResult {
  const written = signed(value, largest);
  const at = (v: number): number => (ends.high > ends.low ? ((v - ends.low) / (ends.high - ends.low)) * 100 : 0);
  const bar = (v: number, run: string): TemplateResult | typeof nothing =>
    Number.isFinite(v)
      ? html`<i class="rs-run-${run}"
          style="margin-left:${Math.min(at(0), at(v))}%;width:${Math.abs(at(v) - at(0))}%"></i>`
      : nothing;
  return html`<span class="rs-name">${name}</span>
    <span class="rs-track rs-pair">${bar(first, "first")}${bar(second, "second")}<b class="rs-origin"
      style="left:${at(0)}%"></b></span>
    <span class="rs-number ${side(written)}">${written}</span>`;
}

// Token labels along a matrix. If there are many tokens, only some have a label. The destination has one, and so has
// the token under the pointer.
import { html, type TemplateResult } from "lit-html";
import type { Part } from "../../draw/zoom";
import type { Store } from "../../state/store";

/** The space that a label needs along the axis, in CSS pixels. The labels of sources are slanted. */
export const LINE = { source: 15, destination: 12 };

/** The positions that get a label: those in `sure`, and as many others as fit, at equal distances. */
export function labelled(
  { start, span }: { start: number; span: number },
  side: number,
  sure: number[],
  line = LINE.destination,
): number[] {
  const step = Math.max(1, Math.ceil((span * line) / side));
  const there = sure.filter((at) => at >= start && at < start + span);
  const free = Array.from({ length: Math.ceil(span / step) }, (_, i) => start + i * step).filter((at) =>
    there.every((mark) => Math.abs(mark - at) >= step * 0.8),
  );
  return [...new Set([...free, ...there])].sort((a, b) => a - b);
}

/** The positions that always have a label. The one under the pointer replaces the destination if they would overlap. */
export function sureOf(marked: number | null, lit: number | null, distance: number, line: number): number[] {
  if (marked !== null && lit !== null && Math.abs(marked - lit) * distance < line) return [lit];
  return [marked, lit].flatMap((at) => at ?? []);
}

/** How far a slanted label may extend beyond the last column, in CSS pixels; and its width per pixel of its length. */
const [BEYOND, SLANT] = [14, Math.cos((58 * Math.PI) / 180)];

export function axisLabels(
  store: Store,
  part: Part,
  axis: "source" | "destination",
  side: number,
  lit: number | null,
): TemplateResult {
  const start = axis === "source" ? part.left : part.top;
  const marked = axis === "destination" ? store.destination.value : null;
  const tokens = store.tokens.value;
  return html`${labelled(
    { start, span: part.span },
    side,
    sureOf(marked, lit, side / part.span, LINE[axis]),
    LINE[axis],
  ).map((i) => {
    const along = (i - start + 0.5) / part.span;
    const longest = Math.floor((side * (1 - along) + BEYOND) / SLANT);
    const place =
      axis === "source" ? `left:${along * 100}%;max-width:min(${longest}px, var(--tops) - 2px)` : `top:${along * 100}%`;
    const classes = `${i === marked ? "rs-marked" : ""} ${i === lit ? "rs-lit" : ""} ${
      tokens[i]?.padding ? "rs-padding" : ""
    }`;
    return html`<span class=${classes} style=${place} dir="auto">${store.tokenName(i)}</span>`;
  })}`;
}

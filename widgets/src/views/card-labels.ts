// Token labels along a matrix; thinned out when there are many, never without the destination's.
import { html, type TemplateResult } from "lit-html";
import type { Part } from "../draw/zoom";
import type { Store } from "../store";

/** CSS pixels a label takes. */
const LINE = 12;

export function axisLabels(store: Store, part: Part, axis: "source" | "destination", side: number, lit: number | null): TemplateResult {
  const start = axis === "source" ? part.left : part.top;
  const step = Math.max(1, Math.ceil((part.span * LINE) / side));
  const marked = axis === "destination" ? store.destination.value : null;
  const tokens = store.tokens.value;
  const near = (i: number): boolean => [marked, lit].some((m) => m !== null && m !== i && Math.abs(m - i) < step * 0.8);
  const labels: TemplateResult[] = [];
  for (let i = start; i < start + part.span; i += 1) {
    const special = i === marked || i === lit;
    if (!special && ((i - start) % step !== 0 || near(i))) continue;
    const place = `${axis === "source" ? "left" : "top"}:${((i - start + 0.5) / part.span) * 100}%`;
    const classes = `${i === marked ? "rs-marked" : ""} ${i === lit ? "rs-lit" : ""} ${tokens[i]?.padding ? "rs-padding" : ""}`;
    labels.push(html`<span class=${classes} style=${place} dir="auto">${store.tokenText(i)}</span>`);
  }
  return html`${labels}`;
}

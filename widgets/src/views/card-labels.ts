// Token labels along a matrix; thinned out when there are many, never without the destination's.
import { html, type TemplateResult } from "lit-html";
import type { Store } from "../store";

const MOST = 22;

export function axisLabels(store: Store, size: number, axis: "source" | "destination"): TemplateResult {
  const step = Math.max(1, Math.ceil(size / MOST));
  const marked = axis === "destination" ? store.destination.value : null;
  const hovered = store.hoveredToken.value;
  const tokens = store.tokens.value;
  const near = (i: number): boolean => [marked, hovered].some((m) => m !== null && m !== i && Math.abs(m - i) < step * 0.8);
  const labels: TemplateResult[] = [];
  for (let i = 0; i < size; i += 1) {
    const special = i === marked || i === hovered;
    if (!special && (i % step !== 0 || near(i))) continue;
    const place = `${axis === "source" ? "left" : "top"}:${((i + 0.5) / size) * 100}%`;
    const classes = `${i === marked ? "rs-marked" : ""} ${i === hovered ? "rs-lit" : ""} ${tokens[i]?.padding ? "rs-padding" : ""}`;
    labels.push(html`<span class=${classes} style=${place}>${store.tokenText(i)}</span>`);
  }
  return html`${labels}`;
}

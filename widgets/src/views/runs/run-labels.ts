// The tokens along the matrices of two runs, as in the attention cards. They are the tokens of run A.
import { html, type TemplateResult } from "lit-html";
import type { Store } from "../../state/store";
import { LINE, labelled } from "../attention/card-labels";
import { placeIn, positionOf, type RunMaps } from "./run-maps";

/** The labels of an axis that is `side` pixels long; `lit` is the row or column under the pointer. */
export function runLabels(
  store: Store,
  maps: RunMaps,
  axis: "source" | "destination",
  side: number,
  lit: number | null,
): TemplateResult {
  const { size } = maps;
  const marked = axis === "destination" ? placeIn(maps, store.destination.value) : null;
  const sure = [marked, lit].flatMap((at) => at ?? []);
  return html`${labelled({ start: 0, span: size }, side, sure, LINE[axis]).map((i) => {
    const at = positionOf(maps, i);
    const place = `${axis === "source" ? "left" : "top"}:${((i + 0.5) / size) * 100}%`;
    const classes = `${i === marked ? "rs-marked" : ""} ${i === lit ? "rs-lit" : ""} ${
      store.tokens.value[at]?.padding ? "rs-padding" : ""
    }`;
    return html`<span class=${classes} style=${place} dir="auto">${store.tokenName(at)}</span>`;
  })}`;
}

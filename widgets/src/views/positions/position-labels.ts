// The labels of maps over positions: tokens above the columns, and components next to the rows. If there is no room for
// all of them, only some are shown.
import { html, nothing, type TemplateResult } from "lit-html";
import { signed } from "../../base/format";
import { layerTicks } from "../../state/axis";
import type { Store } from "../../state/store";
import { type Component, componentsOf, shortLabelOf } from "../../wire/components";
import type { PositionsReply } from "../../wire/protocol.gen";

/** The height of a label in pixels. */
const LABEL = 12;

/**
 * The indices of the labels that are shown, out of `count` labels that are `distance` pixels apart. All marked labels
 * are shown. Other labels are shown at equal distances, unless they would touch a marked one.
 */
export function shownLabels(count: number, distance: number, marked: (number | null)[]): number[] {
  const step = Math.max(1, Math.ceil(LABEL / distance));
  const always = [...new Set(marked)].filter((m) => m !== null && m >= 0 && m < count) as number[];
  const isFree = (i: number): boolean => always.every((m) => Math.abs(m - i) * distance >= LABEL);
  return Array.from({ length: count }, (_, i) => i).filter((i) => always.includes(i) || (i % step === 0 && isFree(i)));
}

/** `shift` is 1 if the label of a column is the token after its position; otherwise 0. */
export function columnLabels(
  store: Store,
  columns: number,
  width: number,
  hovered: number | null,
  shift: 0 | 1,
): TemplateResult {
  const destination = store.destination.value;
  const tokens = store.tokens.value;
  const marked =
    hovered !== null && destination !== null && Math.abs(hovered - destination) * width < LABEL
      ? [hovered]
      : [hovered, destination];
  return html`${shownLabels(columns, width, marked).map((i) => {
    const classes = `${i === destination ? "rs-marked" : ""} ${i === hovered ? "rs-lit" : ""} ${
      tokens[i + shift]?.padding ? "rs-padding" : ""
    }`;
    if (i + shift >= tokens.length && shift > 0) return nothing;
    const name = store.tokenName(i + shift);
    return html`<span class=${classes} dir="auto" style="left:${(i + 0.5) * width}px">${name}</span>`;
  })}`;
}

export function rowLabels(
  reply: PositionsReply | null,
  height: number,
  hovered: number | null,
  isNarrow: boolean,
  store: Store,
): TemplateResult {
  const rows = componentsOf(reply?.components);
  if (reply?.by === "head") {
    return html`${rows.map(({ kind, label: name }, i) => {
      const value = store.headValue(name);
      return html`<button type="button" class="rs-sheet-head ${i === hovered ? "rs-lit" : ""}" data-head=${name}
          aria-pressed=${store.heads.value.includes(name)}
        aria-label="${name}${value === null ? "" : ` ${signed(value, store.largest.value)} at the destination`}"
            style="top:${i * height}px;height:${height}px">${kind === "head" ? name : nothing}</button>`;
    })}`;
  }
  return html`${rowTicks(rows, height, hovered).map((i) => {
    const row = rows[i];
    return (
      row &&
      html`<span class=${i === hovered ? "rs-lit" : ""}
      aria-hidden="true" title=${row.label}
      style="top:${Math.max(5, (i + 0.5) * height)}px">${isNarrow ? shortLabelOf(row) : row.label}</span>`
    );
  })}`;
}

/** The rows that have a label: all rows if there is room; else the first row of some layers, and the hovered row. */
export function rowTicks(rows: readonly Component[], height: number, hovered: number | null): number[] {
  if (height >= LABEL) return rows.map((_, i) => i);
  const layers = new Set(rows.map(({ layer }) => layer).filter((l) => l !== null)).size;
  const room = (rows.length * height) / (LABEL + 2);
  const ticks = new Set(layerTicks(layers, Math.max(1, Math.floor(room))));
  const seen = new Set<number>();
  const labelled = rows.flatMap(({ layer }, i) => {
    if (layer === null || seen.has(layer)) return [];
    seen.add(layer);
    return ticks.has(layer) ? [i] : [];
  });
  if (hovered === null || hovered < 0) return labelled;
  return [...labelled.filter((i) => i !== hovered && Math.abs(i - hovered) * height >= LABEL), hovered];
}

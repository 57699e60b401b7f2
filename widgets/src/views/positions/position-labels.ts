// The labels of the position map: tokens above the columns, components next to the rows. If there are many, only some
// are shown.
import { html, nothing, type TemplateResult } from "lit-html";
import { signed } from "../../base/format";
import { layerTicks } from "../../state/axis";
import type { Store } from "../../state/store";
import { type Component, componentsOf, shortLabelOf } from "../../wire/components";
import type { PositionsReply } from "../../wire/protocol.gen";

const LINE = 12;

/**
 * Which of `count` labels, `size` pixels apart, are shown so that they do not touch: the marked ones, and others at
 * equal distances.
 */
export function written(count: number, size: number, marked: (number | null)[]): number[] {
  const step = Math.max(1, Math.ceil(LINE / size));
  const sure = [...new Set(marked)].filter((m) => m !== null && m >= 0 && m < count) as number[];
  const free = (i: number): boolean => sure.every((m) => Math.abs(m - i) * size >= LINE);
  return Array.from({ length: count }, (_, i) => i).filter((i) => sure.includes(i) || (i % step === 0 && free(i)));
}

export function columnLabels(store: Store, columns: number, x: number, hovered: number | null): TemplateResult {
  const destination = store.destination.value;
  const tokens = store.tokens.value;
  const sure =
    hovered !== null && destination !== null && Math.abs(hovered - destination) * x < LINE
      ? [hovered]
      : [hovered, destination];
  return html`${written(columns, x, sure).map((i) => {
    const classes = `${i === destination ? "rs-marked" : ""} ${i === hovered ? "rs-lit" : ""} ${
      tokens[i]?.padding ? "rs-padding" : ""
    }`;
    return html`<span class=${classes} dir="auto" style="left:${(i + 0.5) * x}px">${store.tokenName(i)}</span>`;
  })}`;
}

export function rowLabels(
  reply: PositionsReply | null,
  y: number,
  hovered: number | null,
  narrow: boolean,
  store: Store,
): TemplateResult {
  const rows = componentsOf(reply?.components);
  if (reply?.by === "head") {
    return html`${rows.map(({ kind, label: name }, i) => {
      const value = store.headValue(name);
      return html`<button type="button" class="rs-sheet-head ${i === hovered ? "rs-lit" : ""}" data-head=${name}
          aria-pressed=${store.heads.value.includes(name)}
        aria-label="${name}${value === null ? "" : ` ${signed(value, store.largest.value)} at the destination`}"
            style="top:${i * y}px;height:${y}px">${kind === "head" ? name : nothing}</button>`;
    })}`;
  }
  return html`${rowTicks(rows, y, hovered).map((i) => {
    const row = rows[i];
    return (
      row &&
      html`<span class=${i === hovered ? "rs-lit" : ""}
      aria-hidden="true" title=${row.label}
      style="top:${Math.max(5, (i + 0.5) * y)}px">${narrow ? shortLabelOf(row) : row.label}</span>`
    );
  })}`;
}

/** The rows that get a label: all if there is room; else the first row of some layers, and the hovered row. */
export function rowTicks(rows: readonly Component[], y: number, hovered: number | null): number[] {
  if (y >= LINE) return rows.map((_, i) => i);
  const layers = new Set(rows.map(({ layer }) => layer).filter((l) => l !== null)).size;
  const room = (rows.length * y) / (LINE + 2);
  const ticks = new Set(layerTicks(layers, Math.max(1, Math.floor(room))));
  const seen = new Set<number>();
  const named = rows.flatMap(({ layer }, i) => {
    if (layer === null || seen.has(layer)) return [];
    seen.add(layer);
    return ticks.has(layer) ? [i] : [];
  });
  if (hovered === null || hovered < 0) return named;
  return [...named.filter((i) => i !== hovered && Math.abs(i - hovered) * y >= LINE), hovered];
}

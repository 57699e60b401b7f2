// The chart of the layers: a bar for what each attention sublayer and each MLP adds. A click on the bar of an MLP lists
// its neurons.
import { computed, type ReadonlySignal } from "@preact/signals-core";
import { html, render, svg } from "lit-html";
import { signed } from "../../base/format";
import { element, watch } from "../../base/lifetime";
import { limitOf } from "../../draw/colours";
import { along, bars } from "../../state/axis";
import type { Store } from "../../state/store";
import { isBefore } from "../../state/target";
import { type Mark, mountChart } from "../../ui/chart";
import { componentsOf } from "../../wire/components";

const BEFORE_ALL = { kind: "embed", layer: null } as const;
const SUBLAYERS: Record<string, string> = { attn: "attention", mlp: "MLP" };

export function mountLayers(parent: HTMLElement, store: Store, row: ReadonlySignal<number>, signal: AbortSignal): void {
  const caption = element("div", "rs-chart-name");
  const layers = computed(() => store.facts.value?.layers ?? 0);
  /** Only the rows of components that come before the point at which the target is read. */
  const rows = computed(() => {
    const components = componentsOf(store.layerRows.value?.reply.components);
    const [target, parallel] = [store.target.value, store.parallel.value];
    return bars(components).filter(({ index }) => isBefore(target, components[index] ?? BEFORE_ALL, parallel));
  });
  const others = computed(() => rows.value.some((bar) => bar.kind === "other" && bar.layer !== null));
  const values = computed(() => store.layerRows.value?.rows ?? new Float32Array(0));
  /** The values of the compared run; null if there is none, or if it has other rows. */
  const second = computed(() => {
    const compared = store.runs.of("layers");
    return compared && compared.second.rows.length === values.value.length ? compared.second.rows : null;
  });
  watch(signal, () => {
    const names = store.runs.names.value;
    const kinds =
      `blue and orange: attention, grey: MLP${others.value ? ", hollow: other components" : ""}` +
      (second.value && names ? `; upper: A, ${names[0]}; lower and paler: B, ${names[1]}` : "");
    render(
      html`<h3 title="What each layer’s attention and MLP add to the ${store.quantity.value} (${kinds})">Layers</h3>
      <span class="rs-key" aria-hidden="true"><i class="rs-key-plus"></i><i class="rs-key-minus"></i>attn <i
          class="rs-key-mlp"></i>MLP</span>`,
      caption,
    );
  });

  const largest = computed(() => Math.max(limitOf(values.value), limitOf(second.value ?? [])));
  const marks = computed<Mark[]>(() =>
    rows.value.map((bar) => {
      const value = values.value[bar.index] ?? 0;
      const other = second.value ? (second.value[bar.index] ?? 0) : undefined;
      const what =
        bar.layer === null
          ? `“${bar.label}”`
          : SUBLAYERS[bar.part]
            ? `the ${SUBLAYERS[bar.part]} of layer ${bar.layer}`
            : `a component of layer ${bar.layer}`;
      const mlp = bar.kind === "mlp" ? bar.layer : null;
      const more =
        mlp === null ? "" : ` · click for ${mlp === store.chosenLayer.value ? "all layers’" : "its"} neurons`;
      return {
        name: bar.label,
        value,
        at: (bar.from + bar.to) / 2,
        layer: bar.layer,
        sentence: [
          `${bar.label}: ${what} adds `,
          { stress: signed(value, largest.value) },
          ` to the ${store.quantity.value}`,
          ...(other === undefined ? [] : [" in A, ", { stress: signed(other, largest.value) }, " in B"]),
          more,
        ],
        ...(other === undefined ? {} : { second: other }),
        ...(mlp === null ? {} : { choose: () => store.toggleLayer(mlp) }),
      };
    }),
  );
  const summary = computed(() => {
    const sorted = [...marks.value].sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, 3);
    return (
      `Layers, largest: ${sorted.map((m) => `${m.name} ${signed(m.value, largest.value)}`).join(", ")}. Arrow ` +
      "keys read the bars, Enter on an MLP lists its neurons."
    );
  });
  const why = computed(() => store.reasonNotDrawn("layers") ?? store.runs.reasonNotDrawn("layers"));

  mountChart(parent, store, signal, {
    className: "rs-layers",
    marks,
    summary,
    layers,
    row,
    why,
    caption,
    draw: (x) => {
      const height = along(layers.value, row.value);
      const chosen = store.chosenLayer.value;
      return html`<svg viewBox="0 0 100 ${height}" preserveAspectRatio="none" aria-hidden="true">
          ${rows.value.flatMap((bar) => {
            const compared = second.value;
            const [top, whole] = [along(bar.from, row.value), along(bar.to, row.value) - along(bar.from, row.value)];
            const drawn = (value: number, from: number, height: number, run: string) => {
              const [left, right] = [Math.min(x(0), x(value)), Math.max(x(0), x(value))];
              const mark = bar.kind === "mlp" && bar.layer === chosen ? "rs-chosen" : "";
              const sign =
                bar.kind === "attention"
                  ? value < 0
                    ? "rs-minus"
                    : "rs-plus"
                  : bar.kind === "mlp"
                    ? "rs-grey"
                    : "rs-hollow";
              return svg`<rect class="rs-bar ${sign} ${mark} ${run}" vector-effect="non-scaling-stroke" x=${left}
                width=${right - left} y=${top + whole * from} height=${whole * height}></rect>`;
            };
            const value = values.value[bar.index] ?? 0;
            return compared
              ? [drawn(value, 0.04, 0.48, ""), drawn(compared[bar.index] ?? 0, 0.52, 0.42, "rs-run-second")]
              : [drawn(value, 0.12, 0.76, "")];
          })}
        </svg>
        ${
          chosen === null
            ? null
            : html`<i class="rs-chosen-layer"
            style="top:${along(chosen, row.value)}px;height:${row.value}px"></i>`
        }`;
    },
  });
}

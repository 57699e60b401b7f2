// Layers: what each attention and each MLP adds, standing under the lens' steps. An MLP's bar lists its neurons.
import { computed } from "@preact/signals-core";
import { html, render, svg } from "lit-html";
import type { Client } from "../client";
import { bars, percent } from "../draw/axis";
import { signed } from "../format";
import { element, watch } from "../lifetime";
import type { Store } from "../store";
import { type Mark, mountChart } from "./chart";

const PARTS: Record<string, string> = { attn: "attention", mlp: "MLP" };

export function mountLayers(parent: HTMLElement, store: Store, _client: Client, signal: AbortSignal): void {
  const title = element("div", "rs-title");
  parent.append(title);
  const layers = computed(() => store.facts.value?.layers ?? 0);
  const rows = computed(() => bars(store.layerRows.value?.reply.labels ?? []));
  const others = computed(() => rows.value.some((bar) => bar.kind === "other" && bar.layer !== null));
  const values = computed(() => store.layerRows.value?.rows ?? new Float32Array(0));
  watch(signal, () => {
    render(html`<h3>Layers <span>what each adds</span></h3>
      <div class="rs-key" aria-hidden="true"><i class="rs-key-plus"></i><i class="rs-key-minus"></i>attention <i class="rs-key-mlp"></i>MLP${others.value ? html` <i class="rs-key-other"></i>other` : null}</div>`, title);
  });

  const marks = computed<Mark[]>(() =>
    rows.value.map((bar) => {
      const value = values.value[bar.index] ?? 0;
      const what = bar.layer === null ? `“${bar.label}”` : PARTS[bar.part] ? `the ${PARTS[bar.part]} of layer ${bar.layer}` : `a part of layer ${bar.layer}`;
      const mlp = bar.kind === "mlp" ? bar.layer : null;
      const more = mlp === null ? "" : ` · click for ${mlp === store.chosenLayer.value ? "all layers’" : "its"} neurons`;
      const verb = value < 0 ? "takes" : "adds";
      return {
        name: bar.label, value, x: (bar.from + bar.to) / 2, layer: bar.layer,
        sentence: [`${bar.label}: ${what} ${verb} `, { stress: signed(value), sign: value }, ` ${value < 0 ? "from" : "to"} the ${store.quantity.value}${more}`],
        ...(mlp === null ? {} : { choose: () => store.toggleLayer(mlp) }),
      };
    }),
  );
  const summary = computed(() => {
    const sorted = [...marks.value].sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, 3);
    return `Layers, largest: ${sorted.map((m) => `${m.name} ${signed(m.value)}`).join(", ")}. Arrow keys read the bars, Enter on an MLP lists its neurons.`;
  });
  const why = computed(() => store.why("layers"));

  mountChart(parent, store, signal, {
    className: "rs-layers", marks, summary, layers, why, xAxis: true,
    draw: (y) => html`<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">
      ${rows.value.map((bar) => {
        const value = values.value[bar.index] ?? 0;
        const [left, right] = [percent(bar.from, layers.value), percent(bar.to, layers.value)];
        const gap = (right - left) * 0.12;
        const [top, bottom] = [Math.min(y(0), y(value)), Math.max(y(0), y(value))];
        const chosen = bar.kind === "mlp" && bar.layer === store.chosenLayer.value ? "rs-chosen" : "";
        const sign = bar.kind === "attention" ? (value < 0 ? "rs-minus" : "rs-plus") : bar.kind === "mlp" ? "rs-grey" : "rs-hollow";
        return svg`<rect class="rs-bar ${sign} ${chosen}" vector-effect="non-scaling-stroke" x=${left + gap} width=${right - left - 2 * gap} y=${top} height=${bottom - top}></rect>`;
      })}
    </svg>
    ${store.chosenLayer.value === null ? null : html`<i class="rs-chosen-layer" style="left:${percent(store.chosenLayer.value, layers.value)}%;width:${100 / (layers.value + 1)}%"></i>`}`,
  });
}

// Logit lens: the quantity after each sublayer, and the switch between its two conventions.
import { computed } from "@preact/signals-core";
import { line } from "d3-shape";
import { html, render, svg } from "lit-html";
import type { Client } from "../client";
import { lensMeaning, lensX, percent } from "../draw/axis";
import { signed } from "../format";
import { element, watch } from "../lifetime";
import type { Norm, Store } from "../store";
import { type Mark, mountChart } from "./chart";

const NORMS: [Norm, string, string][] = [
  ["frozen", "norm frozen", "The final norm’s scale held fixed: the steps add up with the layer rows."],
  ["recomputed", "recomputed", "The norm recomputed at each point: what the model would say if it stopped there."],
];

export function mountLens(parent: HTMLElement, store: Store, _client: Client, signal: AbortSignal): void {
  const title = element("div", "rs-title");
  parent.append(title);

  const layers = computed(() => store.facts.value?.layers ?? 0);
  const marks = computed<Mark[]>(() => {
    const lens = store.lens.value;
    if (!lens) return [];
    const { labels, constant } = lens.reply;
    return labels.map((name, i) => {
      const value = (lens.rows[i] ?? 0) + constant;
      const x = lensX(name, i, labels.length, layers.value);
      return {
        name, value, x,
        layer: x < layers.value ? Math.floor(x) : null,
        sentence: [`Logit lens ${lensMeaning(name)} (${name}): ${store.quantity.value} `, { stress: signed(value), sign: value }],
      };
    });
  });
  const summary = computed(() => {
    const first = marks.value[0];
    const last = marks.value.at(-1);
    if (!first || !last) return "Logit lens";
    return `Logit lens: ${store.quantity.value} from ${signed(first.value)} at ${first.name} to ${signed(last.value)} at ${last.name}. Arrow keys read the points.`;
  });
  const why = computed(() => store.why("lens"));

  watch(signal, () => {
    render(
      html`<h3>Logit lens <span title="${store.quantity.value} after each sublayer">by sublayer</span></h3>
        <div class="rs-switch" role="group" aria-label="Norm of the logit lens">
          ${NORMS.map(([norm, text, tip]) => html`<button type="button" aria-pressed=${store.norm.value === norm} title=${tip}
            @click=${() => (store.norm.value = norm)}>${text}</button>`)}
        </div>`,
      title,
    );
  });

  const path = line<Mark>().x((m) => percent(m.x, layers.value)).defined((m) => Number.isFinite(m.value));
  mountChart(parent, store, signal, {
    className: "rs-lens", marks, summary, layers, why, xAxis: false,
    draw: (y) => {
      const last = marks.value.at(-1);
      return html`<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">
          ${svg`<path class="rs-line" d=${path.y((m) => y(m.value))(marks.value) ?? ""} vector-effect="non-scaling-stroke"></path>`}
        </svg>
        ${last?.name === "final_post" ? html`<i class="rs-end" style="left:${percent(last.x, layers.value)}%;top:${y(last.value)}%"></i>
          <span class="rs-end-value" style="top:${y(last.value)}%">${signed(last.value)}</span>` : null}`;
    },
  });
}

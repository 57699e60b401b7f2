// The MLP neurons that add most and take away most, of one layer or of all layers. Below them: the sum of all neurons.
import { computed, signal as state, untracked } from "@preact/signals-core";
import { html, nothing, render } from "lit-html";
import { counted, signed, vanishes } from "../../base/format";
import { isPlainKey } from "../../base/keyboard";
import { element, watch } from "../../base/lifetime";
import type { Sentence } from "../../base/sentence";
import { limitOf } from "../../draw/colours";
import { NEURONS, type Neurons, type Store } from "../../state/store";
import { readAt } from "../../state/target";
import { askNeuron } from "../../state/trail";
import { prose } from "../../ui/prose";
import { componentsOf } from "../../wire/components";
import { type Entry, sumTable } from "../header/ledger";
import { addArrowKeys, type Ranked, rankLine, reachOf } from "./rank-line";

/** The lines of the table below the neurons (neurons, biases), and their total: what the MLPs add. */
export function neuronEntries({ reply, layer }: Neurons, layers: number): { lines: Entry[]; total: Entry } {
  const { count, total, bias } = reply;
  const one = layer !== null;
  const lines = [
    { name: `${counted(count)} neurons`, value: total },
    { name: one ? "bias" : "biases", value: bias },
  ];
  const name = one ? `MLP of layer ${layer}` : reply.layers < layers ? "MLPs that have neurons" : "MLPs of all layers";
  return { lines: lines.filter((e, i) => i === 0 || !vanishes(e.value, total)), total: { name, value: total + bias } };
}

export function mountNeurons(parent: HTMLElement, store: Store, signal: AbortSignal): void {
  const list = element("div", "rs-ranking rs-neurons", { role: "list", "aria-label": "Top neurons" });
  const sum = element("div", "rs-ledger");
  const refusal = element("p", "rs-refusal", { role: "status" });
  parent.append(list, sum, refusal);

  const components = computed(() => componentsOf(store.neurons.value?.reply.components));
  const ranked = computed<Ranked[]>(() => {
    const data = store.neurons.value;
    return components.value.map(({ label }, i) => ({ name: label, value: data?.values[i] ?? NaN }));
  });
  const problem = computed(() => store.reasonNotDrawn(NEURONS));
  const cursor = state<number | null>(null);
  const tabStop = state(0);

  watch(signal, () => {
    list.hidden = sum.hidden = problem.value !== null;
    refusal.hidden = problem.value === null;
    render(problem.value === null ? nothing : prose(problem.value), refusal);
  });

  watch(signal, () => {
    const found = ranked.value;
    list.style.setProperty("--k", String(store.topK.value));
    const reach = reachOf(found);
    const largest = limitOf(found.map(({ value }) => value));
    const start = Math.min(tabStop.value, Math.max(0, found.length - 1));
    render(
      store.neurons.value === null
        ? html`<p class="rs-waits">adding up the neurons …</p>`
        : found.map(
            (neuron, i) => html`
          <div role="listitem"
              class="rs-rank-line ${
                neuron.value < 0 && (found[i - 1]?.value ?? 0) >= 0 ? "rs-first-minus" : ""
              } ${i === cursor.value ? "rs-hover" : ""}"
            data-at=${i} tabindex=${i === start ? 0 : -1}
                title="Why is it on? (click, Enter or w)"
                aria-label="${neuron.name} ${signed(neuron.value, largest)}"
                aria-description="Enter asks why it is on">${rankLine(neuron, reach, largest)}</div>`,
          ),
      list,
    );
  });

  watch(signal, () => {
    const data = store.neurons.value;
    if (!data) return render(nothing, sum);
    const { lines, total } = neuronEntries(data, store.facts.value?.layers ?? 0);
    render(sumTable("Sum of all neurons", lines, total), sum);
  });

  // For the neuron under the pointer or with the focus: shows its sentence, and highlights its layer in the charts.
  let said: Sentence | null = null;
  let lit: number | null = null;
  watch(signal, () => {
    const neuron = cursor.value === null || store.ranking.value !== "neurons" ? undefined : ranked.value[cursor.value];
    const quantity = store.quantity.value;
    untracked(() => {
      if (!neuron && said === null) return;
      // A sentence or layer that something else has set in the meantime stays.
      const [isSaid, isLit] = [store.sentence.value === said, store.hoveredLayer.value === lit];
      said = neuron ? sentence(neuron, limitOf(ranked.value.map(({ value }) => value)), quantity) : null;
      lit = (neuron && components.value[cursor.value ?? 0]?.layer) ?? null;
      if (neuron || isSaid) store.sentence.value = said;
      if (neuron || isLit) store.hoveredLayer.value = lit;
      store.hoveredNeuron.value = neuron?.name ?? null;
    });
  });

  const at = (event: Event): number | null => {
    const line = event.target instanceof Element ? event.target.closest<HTMLElement>("[data-at]") : null;
    return line ? Number(line.dataset["at"]) : null;
  };
  const leave = (): void => void (cursor.value = null);
  list.addEventListener(
    "pointerover",
    (event) => {
      cursor.value = at(event) ?? cursor.peek();
    },
    { signal },
  );
  list.addEventListener(
    "focusin",
    (event) => {
      const to = at(event);
      if (to !== null) tabStop.value = cursor.value = to;
    },
    { signal },
  );
  list.addEventListener("pointerleave", leave, { signal });
  list.addEventListener("focusout", leave, { signal });
  const why = (event: Event): void => {
    const { kind, layer = null, index = null } = components.peek()[at(event) ?? -1] ?? {};
    if (kind !== "neuron" || layer === null || index === null) return;
    const read = readAt(store.target.peek(), store.chosenPosition.peek());
    askNeuron(store, { layer, index }, read ?? undefined);
  };
  list.addEventListener("click", why, { signal });
  list.addEventListener(
    "keydown",
    (event) => {
      if (!isPlainKey(event) || !["Enter", " ", "w"].includes(event.key)) return;
      event.preventDefault();
      event.stopPropagation();
      why(event);
    },
    { signal },
  );
  addArrowKeys(list, "[data-at]", signal);
}

function sentence({ name, value }: Ranked, largest: number, quantity: string): Sentence {
  return [`${name} adds `, { stress: signed(value, largest) }, ` to the ${quantity} · click: why is it on?`];
}

// Logit lens: the value of the target after each sublayer. The user chooses between two conventions for the final norm.
import { batch, computed, type ReadonlySignal } from "@preact/signals-core";
import { html, nothing, render, svg } from "lit-html";
import { signed } from "../../base/format";
import { element, watch } from "../../base/lifetime";
import { limitOf } from "../../draw/colours";
import { polyline } from "../../draw/polyline";
import { along, lensMeaning, lensX } from "../../state/axis";
import type { Norm, Store, Transport } from "../../state/store";
import { farthest, type Mark, mountChart } from "../../ui/chart";
import { readInPlace, transports } from "../../ui/lens-transport";
import { componentsOf } from "../../wire/components";

const NORMS: [Norm, string, string][] = [
  ["frozen", "norm frozen", "The final norm’s scale is held fixed: the steps of the line equal the layers’ bars."],
  ["recomputed", "recomputed", "The norm recomputed at each point: what the model would predict if it stopped there."],
];

const SHORT: Record<Transport, string> = { plain: "", transported: "transported, " };
const choiceOf = (norm: Norm, transport: Transport): string => (transport === "plain" ? norm : `${transport} ${norm}`);

export function mountLens(parent: HTMLElement, store: Store, row: ReadonlySignal<number>, signal: AbortSignal): void {
  const caption = element("div", "rs-chart-name");
  const layers = computed(() => store.facts.value?.layers ?? 0);
  /** The lens of the compared run; null if there is none, or if it has other points. */
  const second = computed(() => {
    const compared = store.runs.of("lens");
    const same = compared?.second.rows.length === store.lens.value?.rows.length;
    return compared && same ? compared.second : null;
  });
  const marks = computed<Mark[]>(() => {
    const lens = store.lens.value;
    if (!lens) return [];
    const { components, constant } = lens.reply;
    const compared = second.value;
    const of = compared && { rows: compared.rows, constant: compared.reply.constant };
    const largest = limitOf([
      ...lens.rows.map((row) => row + constant),
      ...(of ? of.rows.map((row) => row + of.constant).filter(Number.isFinite) : []),
    ]);
    return componentsOf(components).map((point, i) => {
      const name = point.label;
      const value = (lens.rows[i] ?? 0) + constant;
      const other = of ? (of.rows[i] ?? NaN) + of.constant : NaN;
      const at = lensX(point, layers.value);
      const way = store.lensTransport.value === "plain" ? "" : " transported";
      return {
        name,
        value,
        at,
        layer: at < layers.value ? Math.floor(at) : null,
        sentence: [
          `Logit lens${way} ${lensMeaning(point)} (${name}): ${store.quantity.value} `,
          ...(of ? ["A "] : []),
          { stress: signed(value, largest) },
          ...(of ? [", B ", { stress: signed(other, largest) }] : []),
        ],
        ...(of ? { second: other } : {}),
      };
    });
  });
  const summary = computed(() => {
    const first = marks.value[0];
    const last = marks.value.at(-1);
    if (!first || !last) return "Logit lens";
    const largest = farthest(marks.value);
    return (
      `Logit lens: ${store.quantity.value} from ${signed(first.value, largest)} at ${first.name} to ` +
      `${signed(last.value, largest)} at ${last.name}. Arrow keys read the points.`
    );
  });
  const why = computed(() => store.reasonNotDrawn("lens") ?? store.runs.reasonNotDrawn("lens"));

  watch(signal, () => {
    const norm = store.norm.value;
    const transport = store.lensTransport.value;
    const names = store.runs.names.value;
    const read = readInPlace(store);
    const tip = `${NORMS.find(([name]) => name === norm)?.[2] ?? ""}${read === null ? "" : ` Transported: ${read}.`}`;
    // One menu chooses both the norm and the transport, because there is no room for two menus.
    const choices: [Norm, Transport, string][] = (["plain", "transported"] as const).flatMap((each) =>
      each === "plain" || (transports(store).length > 0 && store.whyPlain.value === null)
        ? NORMS.map(([name, text]): [Norm, Transport, string] => [name, each, SHORT[each] + text])
        : [],
    );
    const choose = (event: Event): void => {
      const chosen = choices[(event.target as HTMLSelectElement).selectedIndex];
      if (!chosen) return;
      batch(() => {
        store.norm.value = chosen[0];
        if (choices.length > NORMS.length) store.transport.value = chosen[1];
      });
    };
    caption.classList.toggle("rs-recomputed", norm === "recomputed" || transport === "transported");
    render(
      html`<h3 title="Logit lens: the ${store.quantity.value} after each sublayer${
        second.value && names ? `; line: A, ${names[0]}; dashed: B, ${names[1]}` : ""
      }">Lens</h3>${
        second.value
          ? html`<span class="rs-run-key" aria-hidden="true"
              title=${`A: ${names?.[0] ?? ""}. B: ${names?.[1] ?? ""}`}><i class="rs-key-line"></i>A<i
              class="rs-key-line rs-dashed"></i>B</span>`
          : nothing
      }
        <span class="rs-choice rs-norm"><select aria-label="Norm of the logit lens" title=${tip}
            .value=${choiceOf(norm, transport)} @change=${choose}>
          ${choices.map(
            ([name, each, text]) => html`<option value=${choiceOf(name, each)}
              ?selected=${name === norm && each === transport}>${text}</option>`,
          )}</select></span>`,
      caption,
    );
  });

  mountChart(parent, store, signal, {
    className: "rs-lens",
    marks,
    summary,
    layers,
    row,
    why,
    caption,
    draw: (x) => {
      const curve = (value: (mark: Mark) => number): string =>
        polyline(
          marks.value.map((m) =>
            Number.isFinite(value(m)) ? [Math.max(0, Math.min(100, x(value(m)))), along(m.at, row.value)] : null,
          ),
        );
      const path = curve((mark) => mark.value);
      const last = marks.value.at(-1);
      return html`<svg viewBox="0 0 100 ${along(layers.value, row.value)}" preserveAspectRatio="none"
          aria-hidden="true">
          ${svg`<path class="rs-line" d=${path} vector-effect="non-scaling-stroke"></path>`}
          ${
            second.value
              ? svg`<path class="rs-line rs-dashed" d=${curve((mark) => mark.second ?? NaN)}
                vector-effect="non-scaling-stroke"></path>`
              : nothing
          }
        </svg>
        ${
          last?.name === "final_post"
            ? html`<i class="rs-end"
            style="left:${x(last.value)}%;top:${along(last.at, row.value)}px"></i>`
            : null
        }`;
    },
  });
}

// The rows of an SAE as signed bars around zero, each feature with its activation.
import { type ReadonlySignal, type Signal, signal as state, untracked } from "@preact/signals-core";
import { html, nothing, render, type TemplateResult } from "lit-html";
import { plain, side, signed } from "../../base/format";
import { keepFocus } from "../../base/keyboard";
import { watch } from "../../base/lifetime";
import type { Store } from "../../state/store";
import { featureName } from "../../state/target";
import { stepAlong } from "../../ui/roving";
import { type FeatureLine, type FeatureLines, type Found, featureLines, othersName } from "./feature-lines";

export const FEW = 10;
export const MANY = 50;

export interface Acts {
  /** Chooses a feature: its activations then colour the tokens. If the feature is chosen already, chooses none. */
  choose: (feature: number) => void;
  /** Asks why a feature is on. */
  why: (feature: number) => void;
}

export function mountFeatureList(
  parent: HTMLElement,
  store: Store,
  found: ReadonlySignal<Found | null>,
  many: Signal<boolean>,
  acts: Acts,
  signal: AbortSignal,
): void {
  const stop = state(0);
  parent.tabIndex = -1; // takes the focus when the row with the focus is removed
  watch(signal, () => {
    const shown = found.value;
    const chosen = store.feature.value;
    const lines = shown && featureLines(shown, many.value ? MANY : FEW);
    const draw = (): unknown => render(shown && lines ? listOf(shown, lines, chosen) : nothing, parent);
    untracked(() => keepFocus(parent, draw));
  });

  function listOf({ reply }: Found, found: FeatureLines, chosen: number | null): TemplateResult {
    const reach = reachOf(found);
    const at = Math.min(stop.peek(), found.lines.length - 1);
    const rest = othersName(found);
    return html`<div class="rs-feature-line rs-feature-head" aria-hidden="true"><span></span><span
        class="rs-number">activation</span><span></span><span
        class="rs-number">adds</span></div>
      <div class="rs-feature-rows" role="list" aria-label="Rows of the SAE: error, bias, strongest features">
        ${found.lines.map((line, i) => rowOf(line, i === at, reply.site, found, reach, chosen))}
      </div>
      ${
        found.others.count === 0
          ? nothing
          : html`<button type="button" class="rs-feature-line rs-feature-rest" aria-expanded=${many.peek()}
            title=${many.peek() ? "List fewer" : `List up to ${MANY} features`}
            @click=${() => (many.value = !many.peek())}>${cellsOf(rest, "", found.others.value, found, reach)}</button>`
      }`;
  }

  function rowOf(
    line: FeatureLine,
    isStop: boolean,
    site: string,
    found: FeatureLines,
    reach: Reach,
    chosen: number | null,
  ): TemplateResult {
    const feature = line.activation === null ? null : line.component.index;
    const written = signed(line.value, found.largest, 1);
    const active = line.activation === null ? "" : plain(line.activation, found.mostActive);
    const size = line.activation !== null && line.activation < 0 ? `−${active}` : active;
    const name = feature === null ? line.name : featureName(feature, site);
    const label = `${name}${size === "" ? "" : `, activation ${size}`}, adds ${written}`;
    const point = (): void => {
      const hint =
        feature === null
          ? HINTS[line.component.kind]
          : feature === chosen
            ? " · its activation colours the tokens"
            : " · click to colour the tokens by it";
      store.sentence.value = [
        `${line.name}: ${size === "" ? "" : `activation ${size}, `}adds `,
        { stress: written },
        hint ?? "",
      ];
    };
    const leave = (): void => void (store.sentence.value = null);
    return html`<div role="listitem"><div role=${feature === null ? "note" : "button"} tabindex=${isStop ? 0 : -1}
        class="rs-feature-line ${feature === null ? "" : "rs-asks"}" data-row=${line.component.label}
        aria-label=${label} aria-pressed=${feature === null ? nothing : feature === chosen}
        title=${feature === null ? nothing : "Colour the tokens by its activation (Enter); ask why it is on (w)"}
        @pointerenter=${point} @pointerleave=${leave}
        @focus=${(event: Event) => {
          if (event.target instanceof HTMLElement) remember(event.target);
          point();
        }} @blur=${leave}
        @click=${() => (feature === null ? undefined : acts.choose(feature))}
        @keydown=${(event: KeyboardEvent) => {
          if (feature === null || event.altKey || event.ctrlKey || event.metaKey) return;
          if (event.key === "Enter" || event.key === " ") acts.choose(feature);
          else if (event.key === "w") acts.why(feature);
          else return;
          event.preventDefault();
          event.stopPropagation();
        }}>${cellsOf(line.name, size, line.value, found, reach)}</div></div>`;
  }

  const rows = (): HTMLElement[] => [...parent.querySelectorAll<HTMLElement>("[data-row]")];
  const remember = (row: HTMLElement): void => {
    const all = rows();
    stop.value = all.indexOf(row);
    for (const one of all) one.tabIndex = one === row ? 0 : -1;
  };
  parent.addEventListener(
    "keydown",
    (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey || !(event.target instanceof HTMLElement)) return;
      const all = rows();
      const at = all.indexOf(event.target);
      const to = at === -1 ? undefined : stepAlong(event.key, at, all.length);
      if (to === undefined) return;
      all[to]?.focus();
      event.preventDefault();
    },
    { signal },
  );
}

const HINTS: Partial<Record<FeatureLine["component"]["kind"], string>> = {
  error: " · what the SAE does not reconstruct",
  b_dec: " · the bias of the decoder",
  skip: " · the skip connection of the transcoder",
  attn_bias: " · the bias of the attention’s output",
};

/** The ends of the axis of the bars. */
interface Reach {
  low: number;
  high: number;
}

function reachOf({ lines, others }: FeatureLines): Reach {
  const values = [...lines, others].map(({ value }) => value);
  return { low: Math.min(0, ...values), high: Math.max(0, ...values) };
}

function cellsOf(
  name: string,
  active: string,
  value: number,
  { largest }: FeatureLines,
  { low, high }: Reach,
): TemplateResult {
  const at = (v: number): number => (high > low ? ((v - low) / (high - low)) * 100 : 0);
  const written = signed(value, largest, 1);
  return html`<span class="rs-name">${name}</span> <span class="rs-number rs-feature-active">${active}</span> <span
      class="rs-why-track" aria-hidden="true"><i class=${value < 0 ? "rs-minus" : "rs-plus"}
      style="left:${at(Math.min(0, value))}%;width:${Math.abs(at(value) - at(0))}%"></i><b
      style="left:${at(0)}%"></b></span> <span class="rs-number ${side(written)}">${written}</span>`;
}
